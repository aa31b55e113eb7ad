"""The protocol over a small study of two methods: what must be equal, what must not run again, rows
worked by hand.
"""

import json

import numpy as np
import pandas as pd
import pytest

from nbhelpers.analyses import all as table
from nbhelpers.analyses import differences, refits, thresholds
from nbhelpers.analyses import global_model as pooled
from nbhelpers.analyses import method_tests as methods
from nbhelpers.analyses import scenarios as cells
from nbhelpers.analyses.cross_scores import cross_scores
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.significance import delong, holm
from nbhelpers.models.backbones import Backbone
from nbhelpers.results.numbers import Results
from nbhelpers.results.table import MACRO, plain
from nbhelpers.results.views import qualified
from nbhelpers.study import open_study

pytestmark = pytest.mark.slow  # its study takes half a minute
SMALL = {
    "methods": ["patchcore", "padim"],
    "autoencoder.architectures": [],
    "data.categories": ["hazelnut", "carpet"],
    "data.image_size": 96,
    "data.synthetic": {"size": 96, "train_good": 15, "test_good": 8, "per_defect": 3},
    "evaluation.bootstrap_draws": 100,
    "evaluation.conformal_folds": 2,
    "padim.n_features": 20,
    "evaluation.target_fprs": [0.1, 0.3],
    "padim.seeds": [42, 43],
}
FREE = [
    "image_auroc",
    "image_ap",
    "f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1",
    "aupro",
    "aupro_005",
    "aupimo",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return str(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def study(workspace):
    """All scenarios run, all parts of the table made that the report would ask for."""
    study = open_study("tiny", {**SMALL, "workspace": workspace})
    for scenario in study.config.scenarios:
        table.run_scenario(study, scenario)
    for part in table.all_parts(study):
        if not part.optional:
            part.rows()
    return study


@pytest.fixture(scope="module")
def metrics(study):
    return table.write_metrics(study)


def cell(metrics, scenario, method, category, against=""):
    """Plain metrics of a cell, or what of it is left when another scenario is subtracted."""
    rows = metrics[
        (metrics.scenario == scenario)
        & (metrics.method == method)
        & (metrics.category == category)
        & (metrics.against == against)
        & (metrics.against_method == "")
        & (metrics.detail == "")
    ]
    return rows.set_index("metric")


@pytest.fixture(scope="module")
def results(metrics):
    return Results(metrics)


def test_a_new_threshold_leaves_every_threshold_free_metric_as_it_was(study, metrics):
    for method, category in study.cells:
        before, after = (
            cell(metrics, name, method, category) for name in ("no_adaptation", "threshold_only")
        )
        shared = [name for name in FREE if name in before.index]
        assert len(shared) > 5
        pd.testing.assert_frame_equal(
            before.loc[shared, ["value", "ci_low", "ci_high"]],
            after.loc[shared, ["value", "ci_low", "ci_high"]],
        )


def test_nothing_after_predictions_runs_or_loads_a_network(study, metrics, workspace, monkeypatch):
    counted = []
    monkeypatch.setattr(Backbone, "__init__", lambda *_, **__: counted.append("loaded"))
    monkeypatch.setattr(Backbone, "forward", lambda *_: counted.append("run"))
    again = open_study("tiny", {**SMALL, "workspace": workspace})
    folder = again.config.output_dir / "results"
    text = (folder / "metrics.csv").read_bytes()
    for made in (*folder.glob("rows/*.json"), *folder.glob("evaluations/*.meta.json")):
        if not made.name.startswith("seeds_"):  # refits are no step after predictions
            made.unlink()
    for scenario in again.config.scenarios:
        table.run_scenario(again, scenario)
    for part in table.all_parts(again):
        if not part.optional:
            part.rows()
    table.write_metrics(again)
    assert counted == []
    assert (folder / "metrics.csv").read_bytes() == text


def test_removing_one_predictions_file_makes_that_one_again(study, metrics):
    def stamps():
        return {
            p: p.stat().st_mtime_ns
            for p in study.config.output_dir.rglob("*.meta.json")
            if "predictions" in p.parts or "models" in p.parts
        }

    before = stamps()
    path = study.predicted("padim", "carpet", fitted_on="shift", domain="shift", split="test").path
    content = path.read_bytes()
    path.unlink()
    table.run_scenario(study, "full_adaptation")
    changed = [made for made, time in stamps().items() if before[made] != time]
    assert changed == [path.with_name("shift_test.npz.meta.json")]
    assert path.read_bytes() == content


def test_steps_add_up_and_macro_is_the_mean(study, metrics):
    path = [
        ("clean", "no_adaptation"),
        ("no_adaptation", "threshold_only"),
        ("threshold_only", "full_adaptation"),
    ]
    for method in study.config.methods:
        for category in (*study.categories, MACRO):
            steps = [cell(metrics, after, method, category, before) for before, after in path]
            whole = cell(metrics, "full_adaptation", method, category, "clean")
            for name in ("image_auroc", "specificity", "f1"):
                assert sum(step.value[name] for step in steps) == pytest.approx(
                    whole.value[name], abs=1e-9
                )
        step = ("no_adaptation", method)
        parts = [
            cell(metrics, *step, category, "clean").value.image_auroc
            for category in study.categories
        ]
        assert cell(metrics, *step, MACRO, "clean").value.image_auroc == pytest.approx(
            np.mean(parts)
        )
    assert (metrics.macro == (metrics.category == MACRO)).all()


def test_a_difference_is_that_of_its_two_cells(study, metrics):
    for method, category in study.cells:
        before, after = (
            cell(metrics, name, method, category).value for name in ("clean", "no_adaptation")
        )
        change = cell(metrics, "no_adaptation", method, category, "clean")
        assert change.value.image_auroc == pytest.approx(
            after.image_auroc - before.image_auroc, abs=1e-9
        )
        assert change.ci_low.image_auroc <= change.ci_high.image_auroc
    moved = metrics[
        (metrics.scenario == "threshold_only")
        & (metrics.against == "no_adaptation")
        & (metrics.metric == "image_auroc")
    ]
    assert len(moved) and (moved[["value", "ci_low", "ci_high"]] == 0).all(axis=None)


def test_recovered_shares_by_hand(study, metrics):
    shares = metrics[(metrics.metric == "recovered_share") & (metrics.detail == "metric")]
    assert len(shares)
    for row in shares[~shares.macro].itertuples():
        name = row.detail_value
        clean, none, adapted = (
            cell(metrics, s, row.method, row.category).value[name]
            for s in ("clean", "no_adaptation", row.scenario)
        )
        assert row.value == pytest.approx((adapted - none) / (clean - none), rel=1e-6)
        loss = cell(metrics, "no_adaptation", row.method, row.category, "clean")
        assert loss.ci_high[name] < 0


def test_method_rows_are_the_tests_and_holm_spans_the_categories(study, metrics):
    compared = metrics[
        (metrics.scenario == "clean")
        & (metrics.method == "patchcore")
        & (metrics.against_method == "padim")
    ]
    p_values = {}
    for category in study.categories:
        a, b = (cells.tested(study, "clean", method, category) for method in ("patchcore", "padim"))
        test = delong(a.labels, a.image_scores, b.image_scores)
        values = compared[compared.category == category].set_index("metric").value
        assert values.image_auroc == pytest.approx(test["difference"], abs=1e-9)
        assert values.p_delong == pytest.approx(test["p_value"], abs=1e-9)
        p_values[category] = test["p_value"]
    adjusted = compared[compared.metric == "p_delong_holm"].set_index("category").value
    assert adjusted.to_dict() == pytest.approx(holm(p_values))


def test_one_threshold_is_the_same_in_all_categories_and_the_ranking_that_of_the_global_model(
    study, metrics
):
    for method in study.config.methods:
        rows = plain(metrics)
        rows = rows[(rows.scenario == "global_one_threshold") & (rows.method == method)]
        assert rows[rows.metric == "threshold"].value.nunique() == 1
        for category in study.categories:
            one, values = (
                cell(metrics, s, method, category).value for s in ("global_one_threshold", "global")
            )
            assert one.image_auroc == values.image_auroc and one.aupro == values.aupro


def test_transfer_matrix_holds_what_the_cells_say(study, metrics, results):
    for method, category in study.cells:
        values = cell(metrics, "global", method, category).value
        names, origin = ("global", method, category), {"threshold_from": category}
        assert results.find(*names, "specificity", **origin).value == pytest.approx(
            values.specificity
        )
        assert results.find(*names, "fnr", **origin).value == pytest.approx(1 - values.recall)
        for source, scenario in (("clean", "no_adaptation"), ("shift", "threshold_only")):
            expected = cell(metrics, scenario, method, category).value
            where = {"threshold_from": source, "tested_on": "shift"}
            number = results.find("transfer", method, category, "specificity", **where)
            assert number.value == pytest.approx(expected.specificity)


def test_the_deployed_rule_s_row_is_the_cell_s_own(study, metrics, results):
    for method, category in study.cells:
        values = cell(metrics, "clean", method, category).value
        for name in ("threshold", "f1", "recall", "specificity"):
            number = results.find("clean", method, category, name, rule="f1_optimal")
            assert number.value == pytest.approx(values[name])
    wide = qualified(thresholds.rules(study, "clean"), "rule", ["f1", "degenerate"])
    assert {"mad", "otsu", "percentile_99.5"} <= set(wide.rule) and "conformal_0.01" not in set(
        wide.rule
    )


def test_promises_by_hand(study, results):
    val, test = (
        study.predictions("patchcore", "carpet", fitted_on="clean", domain="clean", split=split)
        for split in ("val", "test")
    )
    good = np.sort(
        val.image_scores[val.labels == 0]
    )  # 3 images: rank ceil(4 * 0.7) = 3 for 0.3, none for 0.1
    assert len(good) == 3
    names, split = ("clean", "patchcore", "carpet"), {"rule": "conformal_split"}
    flagged = test.image_scores[test.labels == 0] > good[2]
    number = results.find(*names, "realised_fpr", **split, target="0.3")
    assert number.value == pytest.approx(flagged.mean())
    assert (number.detail, number.detail_value) == ("rule+target", '["conformal_split", "0.3"]')
    assert results.find(*names, "realised_fpr", **split, target="0.1") is None
    # every good train and val image
    crossed = {"rule": "conformal_cv", "target": "0.1"}
    assert results.find(*names, "calibration_n", **crossed).value == 15
    folds = cross_scores(study, "patchcore", "carpet")
    own_fold = folds[folds.part == "calibration"]
    one = folds[(folds.part == "test clean") & (folds.id == test.ids[0])].set_index("fold").score
    higher = sum(row.score >= one[row.fold] for row in own_fold.itertuples())
    assert ((1 + higher) / 16 <= 0.3) == _flagged_by_cv(study, 0.3)[0]


def _flagged_by_cv(study, target):
    from nbhelpers.evaluation.thresholds.conformal import cv_plus_p_values

    folds, test = (
        cross_scores(study, "patchcore", "carpet"),
        cells.tested(study, "clean", "patchcore", "carpet"),
    )
    values = folds[folds.part == "calibration"]
    scores = folds[folds.part == "test clean"].pivot(index="fold", columns="id", values="score")[
        list(test.ids)
    ]
    return (
        cv_plus_p_values(values.score.to_numpy(), values.fold.to_numpy(), scores.to_numpy())
        <= target
    )


def test_patch_labels_by_hand():
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, :4, :4] = 1  # the first cell wholly
    masks[0, 0:2, 4:8] = 1  # half of the second
    masks[0, 4, 0] = 1  # a sixteenth of the third
    assert pooled.patch_labels(masks, (2, 2)).tolist() == [[[1, 1], [-1, 0]]]


def test_shortcut_counts_the_patches(study, metrics, results):
    test, owners = pooled.nearest_categories(study, "patchcore", "hazelnut")
    labels = pooled.patch_labels(test.masks, owners.shape[1:])
    foreign = owners[labels == 0] == study.categories.index("carpet")
    values = cell(metrics, "global", "patchcore", "hazelnut")
    names = ("global", "patchcore", "hazelnut", "other_category_share")
    assert results.find(*names, patches="normal").value == pytest.approx(foreign.mean())
    assert values.value.bank_share + cell(
        metrics, "global", "patchcore", "carpet"
    ).value.bank_share == pytest.approx(1)
    shares = [share for _, _, share in pooled.worst_matches(study, "patchcore", 5)]
    assert shares == sorted(shares, reverse=True)
    assert not results.where(metric="other_category_share", method="padim")


def test_seeds_are_refits_and_the_first_is_the_study_s(study, metrics):
    seeds = metrics[
        (metrics.scenario == "seeds")
        & (metrics.metric == "image_auroc")
        & (metrics.category == "carpet")
    ]
    assert seeds.seed.tolist() == [42, 43]
    assert seeds.value.iloc[0] == pytest.approx(
        cell(metrics, "clean", "padim", "carpet").value.image_auroc
    )
    other = (
        study.new_detector("padim", 43)
        .fit(study.split("carpet")["train"])
        .predict(study.split("carpet")["test"])
    )
    auroc = delong(other.labels, other.image_scores, other.image_scores)["auroc_a"]
    assert seeds.value.iloc[1] == pytest.approx(auroc)


def test_sweeps_judge_on_validation(study):
    swept = refits.sweep(study, "padim", "carpet", "clean", "padim.n_features", [5, 20])
    assert swept["padim.n_features"].tolist() == [5, 20] and swept.dimension.tolist() == [5, 20]
    val = study.predictions("padim", "carpet", fitted_on="clean", domain="clean", split="val")
    assert swept.image_auroc.iloc[1] == pytest.approx(
        delong(val.labels, val.image_scores, val.image_scores)["auroc_a"]
    )


def test_json_views_and_decisions_agree_with_the_table(study, metrics):
    folder = study.config.output_dir / "results"
    view = json.loads((folder / "global_results.json").read_text())
    assert view["protocol"] == {
        "model_fitted_on": "clean, all categories pooled",
        "threshold_from": "val clean",
        "tested_on": "test clean",
    }
    values = cell(metrics, "global", "padim", "carpet").value
    assert view["methods"]["padim"]["carpet"]["metrics"]["f1"]["value"] == pytest.approx(values.f1)
    assert set(view["methods"]["padim"]) == set(study.categories)
    assert view["macro"]["padim"]["metrics"]["f1"]["value"] == pytest.approx(
        cell(metrics, "global", "padim", MACRO).value.f1
    )
    decided = pd.read_csv(folder / "per_image" / "global_padim_carpet.csv")
    test = cells.tested(study, "global", "padim", "carpet")
    assert (
        decided.decision.tolist()
        == decide(test.image_scores, values.threshold).astype(int).tolist()
    )


def test_no_part_is_named_twice_and_single_methods_have_no_comparison(study, workspace):
    names = [part.name for part in table.all_parts(study)]
    assert len(set(names)) == len(names)
    alone = open_study(
        "tiny", {**SMALL, "workspace": workspace, "methods": ["padim"], "scenarios": ["clean"]}
    )
    assert (
        methods.parts(alone) == [] and differences.parts(alone) == [] and pooled.parts(alone) == []
    )
