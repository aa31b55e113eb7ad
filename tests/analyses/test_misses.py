"""The error analysis of a study whose predictions are known: who misses what is known before it is
counted.
"""

import shutil

import numpy as np
import pandas as pd
import pytest

from nbhelpers.analyses import misses as error_study
from nbhelpers.analyses.scenarios import evaluate_cell
from nbhelpers.figures.misses import plot_margin_area, plot_recall_by_property
from nbhelpers.files import write_json
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import Results
from nbhelpers.study import Study, open_study

SMALL = {
    "methods": ["patchcore", "padim"],
    "data.categories": ["hazelnut", "carpet"],
    "data.image_size": 64,
    "data.synthetic": {"size": 64, "train_good": 30, "test_good": 6, "per_defect": 4},
    # one image of each type calibrates, three are tested
    "splits.stratify": "defect",
    "splits.val_anomaly_ratio": 0.25,
    "evaluation.bootstrap_draws": 100,
}
#: What each method does not see: scores below all good images. Everything else scores far above
#: them.
BLIND = {"patchcore": {"cut"}, "padim": {"cut", "hole"}}


def known_predictions(study, method, category, fitted_on, domain, split):
    """Scores by defect type, in another unit for each method; maps that are noise, brighter in the
    mask.
    """
    samples = study.split(category, domain)[split]
    rng = np.random.default_rng(len(samples))
    kinds = np.array([s.defect_type for s in samples])
    scores = np.where(kinds == "good", 0.4, np.where(np.isin(kinds, list(BLIND[method])), 0.1, 0.9))
    scores = (scores + 0.1 * rng.random(len(samples))) * {"patchcore": 1, "padim": 100}[method]
    masks = np.zeros((len(samples), 64, 64), np.uint8)
    known = np.array([s.label == 0 or s.mask is not None for s in samples])
    masks[[i for i, s in enumerate(samples) if s.mask is not None], 20:30, 20:30] = 1
    maps = (rng.random(masks.shape) + masks).astype(np.float32)
    return Predictions(
        scores.astype(np.float32),
        maps,
        masks,
        known,
        np.array([s.label for s in samples]),
        tuple(kinds.tolist()),
        tuple(s.id for s in samples),
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return str(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def study(workspace, monkeypatch):
    """A fresh study on shared artefacts that fails where a network would be run."""
    monkeypatch.setattr(Study, "predictions", known_predictions)
    monkeypatch.setattr(Study, "detector", lambda *_: pytest.fail("a detector was asked for"))
    return open_study("tiny", {**SMALL, "workspace": workspace})


def test_facts_are_measured_once_and_binned(study, monkeypatch):
    facts = error_study.defect_facts(study, "carpet")
    assert set(facts.image) == {s.id for s in study.samples("carpet") if s.label}
    assert (
        set(facts["size"]) == {"small", "medium", "large"}
        and facts["size"].value_counts().max() <= 7
    )
    path = study.config.output_dir / "results" / "errors" / "defects_carpet.csv"
    assert path.is_file() and pd.read_csv(path).image.tolist() == facts.image.tolist()
    monkeypatch.setattr(error_study, "describe_defects", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(error_study.defect_facts(study, "carpet"), facts)


def test_every_scenario_has_the_bins_of_the_clean_images(study):
    bins = {}
    for scenario in ("clean", "no_adaptation"):
        table = error_study.defects(study, scenario)
        assert table["size"].notna().all()
        assert len(table) == 2 * sum(
            s.label for name in study.categories for s in study.split(name)["test"]
        )
        first = table[table.method == "patchcore"].set_index("source_id")
        bins[scenario] = first[["size", "border", "contrast", "area_percent"]].sort_index()
        pd.testing.assert_frame_equal(bins[scenario], bins["clean"])
    assert set(error_study.defects(study, "clean").id) != set(
        error_study.defects(study, "no_adaptation").id
    )


def test_recall_rows_say_what_each_method_is_blind_to(study, tmp_path):
    rows = error_study.recall_rows(study, "no_adaptation")
    write_json(tmp_path / "rows.json", rows)  # refuses NaN and what JSON does not know
    table = pd.DataFrame(rows).set_index(["method", "category", "metric", "detail", "detail_value"])
    assert set(table.scenario) == {"no_adaptation"} and set(table.seed) == {42}
    for method, blind in BLIND.items():
        for category in study.categories:
            for kind in {s.defect_type for s in study.split(category)["test"]} - {"good"}:
                row = table.loc[(method, category, "recall", "defect_type", kind)]
                assert row.value == float(kind not in blind) and row.n_images == 3
    # cut is one of 4 types of hazelnut and of 5 of carpet, with as many images as any other
    missed = table.xs(("missed_by_all", "", ""), level=("metric", "detail", "detail_value"))
    assert missed.value.to_dict() == {("all", "hazelnut"): 0.25, ("all", "carpet"): 0.2}
    assert missed.n_images.to_dict() == {("all", "hazelnut"): 12, ("all", "carpet"): 15}
    assert ((table.ci_low <= table.value) & (table.value <= table.ci_high)).all()


def test_parts_add_up_to_the_recall_of_the_cell(study):
    rows = pd.DataFrame(error_study.recall_rows(study, "clean"))
    for (method, category), images in rows[rows.method != "all"].groupby(["method", "category"]):
        whole = evaluate_cell(study, "clean", method, category)["metrics"]["recall"]["value"]
        for name in ("defect_type", "size", "border", "contrast"):
            group = images[(images.metric == "recall") & (images.detail == name)]
            assert (group.value * group.n_images).sum() / group.n_images.sum() == pytest.approx(
                whole
            )


def test_errors_are_listed_and_written(study):
    table = error_study.errors(study, "clean")
    stored = pd.read_csv(study.config.output_dir / "results" / "errors" / "clean.csv")
    assert (
        stored.id.tolist() == table.id.tolist()
        and stored.columns.tolist() == table.columns.tolist()
    )
    assert set(table.kind) == {
        "false_negative"
    }  # every good image scores below every defect that is seen
    for method, blind in BLIND.items():
        images = table[table.method == method]
        assert set(images.defect_type) == blind and len(images) == 3 * len(blind) * len(
            study.categories
        )
        assert (images.margin < 0).all() and images["size"].notna().all()
        assert all(group.margin.is_monotonic_increasing for _, group in images.groupby("category"))


def test_hard_cases_come_first(study):
    cases = error_study.hard_cases(study, "threshold_only")
    assert cases.missed_by_all.tolist() == [True] * 6 + [False] * 21
    assert set(cases.defect_type[:6]) == {"cut"} and set(cases.missed_by[:6]) == {
        "patchcore + padim"
    }
    assert (cases.hardness[:6] == 1).all() and (
        cases.hardness[6:] == 0
    ).all()  # of all good ones, of none
    assert set(cases[cases.missed_by == "padim"].defect_type) == {"hole"}
    assert ((cases.margin_padim < 0) == cases.defect_type.isin(BLIND["padim"])).all()
    assert set(cases.source_id) == {
        s.id for name in study.categories for s in study.split(name)["test"] if s.label
    }


def test_decisions_are_those_of_the_protocol(study):
    table = error_study.decisions(study, "global_one_threshold")
    assert table.groupby("method").threshold.nunique().tolist() == [1, 1]
    assert (table.decision == (table.score >= table.threshold)).all()
    good = table[table.label == 0]
    assert (
        good.groupby(["method", "category"]).good_above.max().tolist() == [1.0] * 4
    )  # the lowest: all are above
    assert good.groupby(["method", "category"]).good_above.min().tolist() == pytest.approx(
        [1 / 6] * 4
    )  # itself


def test_tests_are_adjusted_over_all_questions(study):
    tests = error_study.margin_tests(study, "clean")
    assert len(tests) == 16 and (tests.p_holm >= tests.p).all()
    assert tests.p_holm.min() == pytest.approx(16 * tests.p.min())


def test_separation_has_rows_for_each_defect_type(study):
    table = error_study.separations(study, "clean")
    separated = table.set_index(["method", "category", "defect_type"])
    assert separated.image_auroc["padim", "carpet", "hole"] == 0.0
    assert separated.cliffs_delta["padim", "carpet", "hole"] == -1.0
    assert separated.cliffs_delta["patchcore", "carpet", "hole"] == 1.0
    assert separated.overlap["patchcore", "carpet", "hole"] == 0.0
    assert (table.ks_pvalue_holm >= table.ks_pvalue).all()
    assert table.ks_pvalue_holm.min() == pytest.approx(min(1, len(table) * table.ks_pvalue.min()))
    results = Results(error_study.separation_part(study, "clean").rows())
    for (method, category, name), row in separated.iterrows():
        names = ("clean", method, category)
        delta = results.find(*names, "cliffs_delta", defect_type=name)
        assert (delta.value, delta.ci_low) == (row.cliffs_delta, row.cliffs_delta_low)
        test = study.predictions(method, category, fitted_on="clean", domain="clean", split="test")
        assert delta.n_images == sum(kind in ("good", name) for kind in test.defect_types)
        assert results.find(*names, "overlap", defect_type=name).ci_low is None
        assert results.find(*names, "p_ks_holm", defect_type=name).value == row.ks_pvalue_holm


def test_a_category_without_masks_has_rows_of_its_types_only(study, tmp_path):
    root = tmp_path / "mine"
    shutil.copytree(study.data_root, root, ignore=shutil.ignore_patterns(".*"))
    shutil.rmtree(root / "carpet" / "ground_truth")
    settings = {name: value for name, value in SMALL.items() if name != "data.synthetic"}
    settings |= {"data.root": str(root), "workspace": str(tmp_path)}
    mine = open_study("folder", settings)
    table = pd.DataFrame(error_study.recall_rows(mine, "clean"))
    assert set(table[table.category == "carpet"].detail) - {""} == {"defect_type"}
    assert (table[table.category == "hazelnut"].detail == "size").any()
    assert (
        len(error_study.hard_cases(mine, "clean")) == 27
        and error_study.defect_facts(mine, "carpet").empty
    )
    shutil.rmtree(root / "hazelnut" / "ground_truth")
    none = open_study("folder", settings)
    rows = pd.DataFrame(error_study.recall_rows(none, "clean"))
    assert (
        error_study.margin_tests(none, "clean").p.notna().sum() == 4
    )  # that of the type, for each cell
    for figure in (
        plot_recall_by_property(rows, "clean"),
        plot_margin_area(error_study.defects(none, "clean")),
    ):
        assert "no masks" in figure.axes[0].texts[0].get_text()
