"""The code of the README and the how-to pages runs, on a very small drawn data set."""

import csv
import shutil

import matplotlib.pyplot as plt
import pytest
import torch

from nbhelpers.config import WORKSPACE_VARIABLE, load_config, parse_yaml
from nbhelpers.data.layout import scan_category
from nbhelpers.data.synthetic.dataset import make_synthetic
from nbhelpers.files import write_csv
from nbhelpers.results.table import results_table, to_rows
from tests.docs.pages import ROOT, blocks, name, pages

PAGES = {name(path): path.read_text("utf-8") for path in pages()}
WITH_CODE = [page for page, text in PAGES.items() if blocks(text, "python")]
WITH_SETTINGS = [page for page, text in PAGES.items() if blocks(text, "yaml")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder ``my_images`` with one category called screw: six good images, seven for testing."""
    root = tmp_path_factory.mktemp("pages") / "my_images"
    make_synthetic(root, ["hazelnut"], size=64, train_good=6, test_good=3, per_defect=1)
    (root / "hazelnut").rename(root / "screw")
    return root


@pytest.fixture
def reader(drawn, tmp_path, monkeypatch):
    """Where a reader stands: a folder with the files that the pages name."""
    shutil.copytree(drawn, tmp_path / "my_images")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path))
    with open("list.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "split", "defect_type"])
        for sample in scan_category("my_images", "screw"):
            table.writerow([sample.image, sample.mask or "", sample.source, sample.defect_type])
    entry = {"value": 0.75, "ci_low": 0.5, "ci_high": 1.0, "n_images": 12}
    rows = to_rows("clean", "patchcore", "", 42, {"image_auroc": entry, "aupro": entry})
    write_csv(tmp_path / "outputs" / "tiny" / "results" / "metrics.csv", results_table(rows))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for images this small, more threads only wait for each other
    yield tmp_path
    torch.set_num_threads(threads)
    plt.close("all")


def run(page: str, text: str) -> dict:
    """Run all Python blocks of a page as a reader would, one after another; errors name its lines."""
    names = {"__name__": "page"}
    for block in blocks(text, "python"):
        code = "\n" * (block.line - 1) + block.text
        exec(compile(code, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(page, reader, capsys):
    names = run(page, PAGES[page])
    assert names.keys() - {"__name__", "__builtins__"}
    printed = capsys.readouterr().out
    if page == "README.md":
        assert "(7, 224, 224)" in printed  # three good and four defect images
    if page == "docs/how-to/add-a-data-set.md":
        assert "(6, 3, 4)" in printed
    if page == "docs/how-to/read-the-report.md":
        assert printed.split()[-5:] == ["clean", "patchcore", "0.75", "0.5", "1"]
    if page == "docs/how-to/your-images.md":
        first, again = names["predictions"].image_scores[-1], names["again"]
        assert again.predict(names["samples"][-1:]).image_scores[0] == pytest.approx(
            first, rel=1e-5
        )
    if page == "docs/how-to/add-an-analysis.md":
        gap = names["gap_part"](names["study"], "clean").rows().value.item()
        assert gap == pytest.approx(names["defect"].mean() - names["good"].mean(), rel=1e-4)


def test_pages_with_code_are_found():
    assert {"README.md", "docs/how-to/your-images.md", "docs/how-to/add-a-network.md"} <= set(
        WITH_CODE
    )


def test_a_snippet_that_fails_names_its_page_and_line():
    text = "# A page\n\n```python\nvalue = 1\nvalue.nothing\n```\n"
    with pytest.raises(AttributeError) as error:
        run("page.md", text)
    last = error.traceback[-1]
    assert (str(last.path).rsplit("/", 1)[-1], last.lineno + 1) == ("page.md", 5)


def test_a_new_detector_of_the_page_keeps_what_it_learned(reader):
    names = run("add-a-detector", PAGES["docs/how-to/add-a-detector.md"])
    detector, samples = names["detector"], names["samples"][-3:]
    detector.save(reader / "stored")
    again = type(detector).load(reader / "stored")
    assert (again.predict(samples).image_scores == detector.predict(samples).image_scores).all()


@pytest.mark.parametrize("page", WITH_SETTINGS)
def test_the_settings_that_a_page_shows_are_known(page):
    for block in blocks(PAGES[page], "yaml"):
        config = load_config("folder", parse_yaml(block.text))
        assert config.data.image_size == 256


def test_the_how_to_pages_are_listed():
    listed = (ROOT / "docs" / "how-to" / "index.md").read_text("utf-8")
    for path in (ROOT / "docs" / "how-to").glob("*.md"):
        assert path.stem == "index" or f"\n{path.stem}\n" in listed
