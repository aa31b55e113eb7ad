"""The study end to end on a handful of drawn images: each thing made once, stale things made again."""

import doctest
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nbhelpers.analyses.all import run_scenario, write_metrics
from nbhelpers.analyses.cross_scores import cross_scores
from nbhelpers.data.images import read_image
from nbhelpers.errors import ConfigError, DataError
from nbhelpers.results.numbers import read_metrics
from nbhelpers.results.table import MACRO
from nbhelpers.runtime import pick_device
from nbhelpers.study import Study, open_study

SMALL = {
    "data.categories": ["hazelnut", "carpet"],
    "data.image_size": 64,
    "data.synthetic": {"size": 64, "train_good": 10, "test_good": 4, "per_defect": 2},
    "evaluation.bootstrap_draws": 100,
    "methods": ["patchcore"],
    "autoencoder.architectures": [],
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return str(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def small(workspace):
    """A fresh study on shared artefacts: what an earlier test made is there already."""
    return open_study("tiny", {**SMALL, "workspace": workspace})


def stamps(study):
    """Content and time of every artefact that predictions and results stand on."""
    return {
        p.relative_to(study.config.workspace_dir): p.stat().st_mtime_ns
        for p in study.config.workspace_dir.rglob("*.meta.json")
    }


def test_from_nothing_to_metrics(small):
    clean = run_scenario(small, "clean")
    shifted = run_scenario(small, "no_adaptation")
    assert set(clean.category) == {"hazelnut", "carpet", MACRO} and set(shifted.scenario) == {
        "no_adaptation"
    }
    stored = read_metrics(small.config.output_dir / "results" / "metrics.csv")
    assert len(stored[stored.scenario != "data"]) == len(clean) + len(shifted)
    counts = stored.query("scenario == 'data' and category == 'carpet'").set_index("metric").value
    assert (
        counts.train_good == 8 and counts.val_good == 2 and counts.test_good == 4
    )  # 10 and 4 were drawn
    view = json.loads(
        (small.config.output_dir / "results" / "shifted_no_adaptation_results.json").read_text()
    )
    value = stored.query(
        "scenario == 'no_adaptation' and category == 'carpet' and metric == 'f1'"
    ).value.item()
    assert view["methods"]["patchcore"]["carpet"]["metrics"]["f1"]["value"] == pytest.approx(
        value, abs=1e-5
    )
    assert (
        view["provenance"]["config_hash"] == small.config.digest()
        and view["provenance"]["seconds"] > 0
    )


def test_removing_one_predictions_file_makes_that_one_again(small):
    run_scenario(small, "clean")
    before = stamps(small)
    path = small.predicted(
        "patchcore", "carpet", fitted_on="clean", domain="clean", split="test"
    ).path
    content = path.read_bytes()
    path.unlink()
    run_scenario(small, "clean")
    changed = {p for p, t in stamps(small).items() if before.get(p) != t}
    assert [p.name for p in changed] == [
        "clean_test.npz.meta.json"
    ] and path.read_bytes() == content


def test_a_changed_setting_meets_no_stale_file(small, workspace):
    run_scenario(small, "clean")
    before = stamps(small)
    other = open_study("tiny", {**SMALL, "workspace": workspace, "patchcore.num_neighbors": 5})
    run_scenario(other, "clean")
    changed = {p.name for p, t in stamps(other).items() if before.get(p) != t}
    # models, their validation and test predictions and the evaluations; neither data, splits nor
    # shifted images
    assert changed == {
        "patchcore_hazelnut_clean.meta.json",
        "patchcore_carpet_clean.meta.json",
        "clean_val.npz.meta.json",
        "clean_test.npz.meta.json",
        "clean_patchcore.json.meta.json",
        "clean_patchcore_hazelnut.meta.json",
        "clean_patchcore_carpet.meta.json",
    }
    # rows of a scenario that was evaluated with other settings do not stand in the table
    assert set(write_metrics(other).scenario) == {"clean", "data"}


def test_test_time_augmentation_is_part_of_the_recipe(small, workspace):
    other = open_study("tiny", {**SMALL, "workspace": workspace, "tta": "flips"})
    plain, flips = (study.fitted("patchcore", "carpet").recipe for study in (small, other))
    assert plain["tta"] == "none" and flips == {**plain, "tta": "flips"}


def test_changed_images_change_the_split_and_what_follows(tmp_path):
    study = open_study("tiny", {**SMALL, "workspace": str(tmp_path)})
    first = study.splits["carpet"]
    assert study.verify("carpet", first)["train"] == (8, 0)
    # the same images as the user's own folder, one training image a copy of a test image: no
    # detector learns from an image that is tested on
    root = study.data_root
    source, copy = first["train"][0].image, first["test"][0].image
    copy.write_bytes(source.read_bytes())
    folder = open_study(
        "folder",
        {"data.root": str(root), "data.categories": ["carpet"], "workspace": str(tmp_path)},
    )
    split = folder.splits["carpet"]
    assert source not in [sample.image for part in split.values() for sample in part]
    assert copy in [sample.image for sample in split["test"]]
    assert folder.verify("carpet", split)["test"] == study.verify("carpet", first)["test"]
    leak = {**split, "train": [*split["train"], first["train"][0]]}
    with pytest.raises(DataError, match="the same image content stands in two splits"):
        folder.verify("carpet", leak)


def deepened(source, root):
    """The carpet category of ``source`` as a camera of 12 bits stores it, in files of 16."""
    for path in (source / "carpet").rglob("*.png"):
        copy = root / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if "ground_truth" in path.parts:
            copy.write_bytes(path.read_bytes())
        else:
            grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
            Image.fromarray(grey * np.uint16(16) + np.uint16(7)).save(copy)
            Image.fromarray(grey.astype(np.uint8)).save(path)


def test_twelve_bits_are_scored_as_eight(tmp_path):
    drawn = open_study("tiny", {**SMALL, "workspace": str(tmp_path)}).data_root
    mine = drawn.parent / "eight"
    shutil.copytree(drawn, mine)
    deepened(mine, drawn.parent / "twelve")
    options = {k: v for k, v in SMALL.items() if not k.startswith("data.")}

    def study(folder, **data):
        changes = {"data.root": f"data/raw/{folder}", "data.categories": ["carpet"], **data}
        return open_study(
            "folder", {**options, "workspace": str(tmp_path), "data.image_size": 64, **changes}
        )

    eight, twelve = study("eight"), study("twelve")
    assert {s.reading.full_scale for s in twelve.samples("carpet")} == {4095}
    assert {s.reading.full_scale for s in eight.samples("carpet")} == {None}
    asked = {"fitted_on": "clean", "domain": "clean", "split": "test"}
    expected = eight.predictions("patchcore", "carpet", **asked)
    np.testing.assert_allclose(
        twelve.predictions("patchcore", "carpet", **asked).image_scores,
        expected.image_scores,
        rtol=0.05,
    )
    # twins are written as 8 bit, of the same grey
    images = [
        read_image(one.split("carpet", "shift")["test"][0].image).astype(int)
        for one in (eight, twelve)
    ]
    assert np.abs(images[0] - images[1]).mean() < 1
    # another reading is another study, of the same split
    other = study("twelve", **{"data.bit_depth": 14})
    assert other.splits["carpet"]["train"][0].reading.full_scale == 16383
    keys = {one.fitted("patchcore", "carpet").key for one in (eight, twelve, other)}
    assert len(keys) == 3


def test_images_that_were_not_drawn_here_are_never_replaced(tmp_path):
    mine = tmp_path / "data" / "raw" / "synthetic" / "carpet" / "train" / "good"
    mine.mkdir(parents=True)
    (mine / "precious.png").write_bytes(b"mine")
    with pytest.raises(DataError, match="expected no folder.*carpet"):
        _ = open_study("tiny", {**SMALL, "workspace": str(tmp_path)}).data_root
    assert (mine / "precious.png").read_bytes() == b"mine"


def test_raw_data_is_never_modified(small):
    before = {p: p.read_bytes() for p in small.data_root.rglob("*.png")}
    for category in small.categories:
        small.shifted(category)
    assert {p: p.read_bytes() for p in small.data_root.rglob("*.png")} == before


def test_shifted_twins_pair_with_their_sources(small):
    manifest = small.shifted("hazelnut")
    clean, shift = small.split("hazelnut"), small.split("hazelnut", "shift")
    for name in ("train", "val", "test"):
        assert small.source_ids("hazelnut", [s.id for s in shift[name]]) == [
            s.id for s in clean[name]
        ]
        assert [s.defect_type for s in shift[name]] == [s.defect_type for s in clean[name]]
    pairs = json.loads((small.config.shifted_dir / "hazelnut" / "shifted_splits.json").read_text())
    assert sum(len(part) for part in pairs["source_of_each_image"].values()) == len(manifest)


def test_predictions_do_not_depend_on_global_generators(small):
    torch.manual_seed(1)
    np.random.seed(1)
    first = (
        small.new_detector("patchcore")
        .fit(small.split("carpet")["train"])
        .predict(small.split("carpet")["val"])
    )
    torch.manual_seed(2)
    np.random.seed(2)
    second = (
        small.new_detector("patchcore")
        .fit(small.split("carpet")["train"])
        .predict(small.split("carpet")["val"])
    )
    np.testing.assert_array_equal(first.image_scores, second.image_scores)


def test_what_a_fit_domain_needs():
    study = open_study("tiny", {"scenarios": ["clean", "no_adaptation"]})
    assert study.fit_domains == ("clean",)
    assert study.needed_predictions("clean") == [
        ("clean", "val"),
        ("clean", "test"),
        ("shift", "test"),
    ]
    full = open_study("tiny", {"scenarios": ["clean", "full_adaptation", "global"]})
    assert full.fit_domains == ("clean", "shift")
    assert full.needed_predictions("shift") == [("shift", "val"), ("shift", "test")]
    assert full.needed_predictions("global") == [("clean", "val"), ("clean", "test")]


def test_the_global_detector_is_fitted_on_all_categories(small):
    pooled = small.training("carpet", fitted_on="global")
    assert [s.id for s in pooled] == [
        s.id for name in ("hazelnut", "carpet") for s in small.split(name)["train"]
    ]
    paths = {
        small.fitted("patchcore", name, fitted_on="global").path for name in ("carpet", "hazelnut")
    }
    assert len(paths) == 1
    stats = small.detector_stats("patchcore", "carpet", fitted_on="global")
    assert (
        stats["n_images"] == 16
        and stats["bank_size/hazelnut"] + stats["bank_size/carpet"] == stats["bank_size"]
    )
    assert small.detector("patchcore", "carpet", fitted_on="global").stats == stats


def test_refits_of_cv_plus_leave_their_fold_out(small):
    table = cross_scores(small, "patchcore", "carpet")
    calibration = table[table.part == "calibration"]
    good = [s.id for name in ("train", "val") for s in small.split("carpet")[name] if not s.label]
    assert sorted(calibration.id) == sorted(good)
    assert (calibration.label == 0).all() and set(calibration.fold) == {0, 1}
    for domain in ("clean", "shift"):
        test = table[table.part == f"test {domain}"]
        ids = [s.id for s in small.split("carpet", domain)["test"]]
        assert test.groupby("fold").id.apply(list).tolist() == [ids] * 2
    # by hand: the first fold's refit
    fold = calibration[calibration.fold == 0]
    others = set(calibration[calibration.fold != 0].id)
    seen = [s for name in ("train", "val") for s in small.split("carpet")[name] if s.id in others]
    scores = (
        small.new_detector("patchcore")
        .fit(seen)
        .predict([s for s in small.samples("carpet") if s.id in set(fold.id)])
    )
    assert dict(zip(scores.ids, scores.image_scores, strict=True)) == pytest.approx(
        dict(zip(fold.id, fold.score, strict=True)), rel=1e-5
    )


def test_unknown_names_are_refused(small):
    with pytest.raises(
        ConfigError, match="category 'screw': expected one of this study's \\(hazelnut, carpet\\)"
    ):
        small.split("screw")
    for ask in (small.new_detector, lambda method: small.fitted(method, "carpet")):
        with pytest.raises(ConfigError, match="unknown method 'screw'; known: patchcore, padim"):
            ask("screw")
    # a misspelt domain or split must not silently mean another one
    with pytest.raises(ConfigError, match="domain 'shfit': expected one of .*\\(clean, shift\\)"):
        small.split("carpet", "shfit")
    with pytest.raises(ConfigError, match="fitted_on 'all': expected .*\\(clean, shift, global\\)"):
        small.detector("patchcore", "carpet", fitted_on="all")
    places = {"fitted_on": "clean", "domain": "clean", "split": "test"}
    for kind in ("domain", "split"):
        with pytest.raises(ConfigError, match=f"{kind} 'tset': expected one of this study's"):
            small.predictions("patchcore", "carpet", **{**places, kind: "tset"})


def test_the_examples_of_the_study_hold(small):
    (examples,) = doctest.DocTestFinder(recurse=False).find(Study, "Study", globs={"study": small})
    assert len(examples.examples) >= 10
    assert doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the missing device")
def test_a_device_that_is_not_there_is_refused():
    assert pick_device("auto") in ("cpu", "mps")
    with pytest.raises(ConfigError, match="expected cuda, found no such device"):
        pick_device("cuda")
