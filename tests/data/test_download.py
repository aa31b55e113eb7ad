"""Fetching data: planned without credentials, refused in words, complete or not there; splits from
the shell.
"""

from pathlib import Path
from urllib.error import URLError

import pytest

import download_dataset
import generate_all_splits
from nbhelpers.data import download
from nbhelpers.data.synthetic.dataset import make_synthetic
from nbhelpers.errors import DataError, ResourceError
from nbhelpers.files import read_json


@pytest.fixture
def no_token(monkeypatch, tmp_path):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "no_kaggle"))


def test_a_dry_run_needs_neither_network_nor_token(no_token, capsys, tmp_path):
    assert (
        download_dataset.main(["--source", "kaggle", "--dry-run", "--root", str(tmp_path / "raw")])
        == 0
    )
    printed = capsys.readouterr().out
    assert "ipythonx/mvtec-ad" in printed and "keep hazelnut, carpet, zipper" in printed
    assert not (tmp_path / "raw").exists()


def test_without_a_token_it_says_where_one_comes_from(no_token, tmp_path):
    with pytest.raises(
        ResourceError,
        match="expected a Kaggle token, found none.*KAGGLE_USERNAME.*--source official",
    ):
        download.download("kaggle", tmp_path)


def test_a_token_is_found_where_kaggle_looks(no_token, monkeypatch, tmp_path):
    assert not download.has_kaggle_token()
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_text("{}")
    assert download.has_kaggle_token()


def fake_archive(folder: Path) -> None:
    """An archive with one nesting level and a category too many."""
    make_synthetic(folder / "mvtec", size=64, train_good=2, test_good=1, per_defect=1)


def test_only_the_requested_categories_arrive_and_the_rest_is_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "_fetch_official", fake_archive)
    download.download("official", tmp_path, ("zipper", "carpet"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["carpet", "zipper"]
    monkeypatch.setattr(download, "_fetch_official", lambda _: pytest.fail("fetched again"))
    download.download("official", tmp_path, ("zipper", "carpet"))


def test_no_network_is_named_with_a_way_out(monkeypatch, tmp_path):
    def offline(folder):
        raise URLError("no route")

    monkeypatch.setattr(download, "_fetch_official", offline)
    with pytest.raises(
        ResourceError, match="could not fetch MVTec AD from source 'official'.*by hand"
    ):
        download.download("official", tmp_path)


def test_an_archive_without_a_category_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "_fetch_official", fake_archive)
    with pytest.raises(DataError, match="expected the category 'screw'"):
        download.download("official", tmp_path, ("screw",))


def test_verify_compares_with_the_official_counts(capsys, tmp_path):
    make_synthetic(tmp_path, ("carpet",), size=64, train_good=2, test_good=1, per_defect=1)
    assert (
        download_dataset.main(["--verify", "--root", str(tmp_path), "--categories", "carpet"]) == 2
    )
    assert "expected 280/28/89 images" in capsys.readouterr().err
    (tmp_path / "carpet").rename(tmp_path / "rug")
    assert download_dataset.main(["--verify", "--root", str(tmp_path), "--categories", "rug"]) == 0
    assert "rug: train good 2, test good 1, test defects 5: OK" in capsys.readouterr().out
    assert (
        download_dataset.main(["--verify", "--root", str(tmp_path), "--categories", "carpet"]) == 2
    )


def test_splits_from_the_shell_have_the_same_bytes_again(monkeypatch, capsys, tmp_path):
    make_synthetic(
        tmp_path / "images", ("carpet",), size=64, train_good=10, test_good=3, per_defect=2
    )
    monkeypatch.setenv("STUDY_WORKSPACE", str(tmp_path / "work"))
    arguments = ["--profile", "folder", "--data-root", str(tmp_path / "images")]
    assert generate_all_splits.main(arguments) == 0
    (path,) = (tmp_path / "work" / "data" / "processed").glob("folder@images-*/clean_splits.json")
    first = read_json(path)
    path.unlink()
    assert generate_all_splits.main(arguments) == 0
    again = read_json(path)
    first["metadata"].pop("created_at"), again["metadata"].pop("created_at")
    assert again == first
    assert str(tmp_path) not in path.read_text()  # relative paths only
    assert "carpet: train 8, val 5, test 10" in capsys.readouterr().out
    assert generate_all_splits.main([*arguments, "--categories", "screw"]) == 2
    assert "screw" in capsys.readouterr().err
