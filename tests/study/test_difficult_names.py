"""A category and defect types with difficult names go through the whole study, from folder to page."""

import csv
import html
import re

import cv2
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from nbhelpers.report import build  # noqa: E402  (after the choice of backend)
from nbhelpers.results.numbers import read_metrics  # noqa: E402
from nbhelpers.study import open_study  # noqa: E402

CATEGORY, TYPES = 'bottle, [green] = "macro"', ("NA", "a,b")
SETTINGS = {
    "data.image_size": 64,
    "evaluation.bootstrap_draws": 100,
    "evaluation.conformal_folds": 2,
    "padim.n_features": 10,
    "padim.seeds": [42],
    "device": "cpu",
    "threads": 1,
}


def draw(root, rng):
    """Noisy grey images in MVTec AD layout; a defect is a bright or a dark square."""
    for part, kind, count in (
        ("train", "good", 10),
        ("test", "good", 4),
        *(("test", name, 3) for name in TYPES),
    ):
        folder, masks = root / CATEGORY / part / kind, root / CATEGORY / "ground_truth" / kind
        folder.mkdir(parents=True)
        if kind != "good":
            masks.mkdir(parents=True)
        for i in range(count):
            image = rng.normal(110, 12, (80, 72, 3)).clip(0, 255).astype(np.uint8)
            if kind != "good":
                y, x = rng.integers(10, 40, 2)
                image[y : y + 18, x : x + 18] = 250 if kind == "NA" else 10
                mask = np.zeros((80, 72), np.uint8)
                mask[y : y + 18, x : x + 18] = 255
                cv2.imwrite(str(masks / f"{i:03}_mask.png"), mask)
            cv2.imwrite(str(folder / f"{i:03}.png"), image)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All scenarios and analyses run and reported, with the figures that have the category's name."""
    folder = tmp_path_factory.mktemp("names")
    draw(folder / "images", np.random.default_rng(0))
    here = {"data.root": str(folder / "images"), "workspace": str(folder / "workspace")}
    study = open_study("folder", {**SETTINGS, **here})
    all_figures = build._figures
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            build,
            "_figures",
            lambda *arguments: [each for each in all_figures(*arguments) if CATEGORY in str(each)],
        )
        build.complete(study)
        build.write_report(study, "2026-01-31")
    return study


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_folder_is_the_category_in_every_scenario(study):
    assert study.categories == (CATEGORY,)
    table = read_metrics(study.config.output_dir / "results" / "metrics.csv")
    assert set(table.category[~table.macro]) == {CATEGORY}
    assert set(study.config.scenarios) <= set(table.scenario)
    assert set(table.method) >= {"patchcore", "padim"}
    recalls = table[(table.metric == "recall") & (table.detail == "defect_type")]
    assert set(recalls.detail_value) == set(TYPES)


@pytest.mark.slow
def test_the_names_come_out_whole_in_csv_markdown_latex_and_html(study):
    folder = build.report_folder(study)
    types = rows(folder / "tables" / "errors_defect_type.csv")
    assert {(row["category"], row["defect_type"]) for row in types} == {
        (CATEGORY, name) for name in TYPES
    }
    assert {row["category"] for row in rows(folder / "tables" / "results.csv")} == {CATEGORY, ""}
    lines = (folder / "tables" / "errors_defect_type.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if CATEGORY in line]
    assert {(row[2], row[3]) for row in cells} == {(CATEGORY, name) for name in TYPES}
    latex = (folder / "tables" / "errors_defect_type.tex").read_text(encoding="utf-8")
    assert all(f"& {CATEGORY} & {name} &" in latex for name in TYPES)
    page = (folder / "report.html").read_text(encoding="utf-8")
    texts = {html.unescape(text) for text in re.findall(r"<td[^>]*>(.*?)</t", page)}
    texts |= {html.unescape(text) for text in re.findall(r"<th[^>]*>(.*?)</t", page)}
    assert {CATEGORY, *TYPES} <= texts
    pictures = [path.name for path in (folder / "figures").glob("*.png")]
    assert pictures == [f"best_and_worst_no_adaptation_{CATEGORY}.png"]


@pytest.mark.slow
def test_a_second_run_finds_everything_under_these_names(study):
    before = {
        path: path.stat().st_mtime_ns for path in study.config.workspace_dir.rglob("*.meta.json")
    }
    again = open_study(
        "folder",
        {**SETTINGS, "data.root": study.config.data.root, "workspace": study.config.workspace},
    )
    build.complete(again)
    assert before == {
        path: path.stat().st_mtime_ns for path in again.config.workspace_dir.rglob("*.meta.json")
    }
