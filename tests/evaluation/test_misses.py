"""Errors, bins, recall, agreement and rank tests: worked by hand, and against independent
implementations.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import share_interval
from nbhelpers.evaluation.misses import (
    BORDER_LIMITS,
    agreement,
    bin_defects,
    bin_limits,
    error_table,
    margin_tests,
    missed_by,
    missed_by_all,
    recall_by,
    separation,
)
from nbhelpers.predictions import Predictions

EFFECTS = ("cliffs_delta", "hedges_g")


def predictions(scores, labels, types=None):
    """Predictions whose maps do not matter; ids are a, b, c, ..."""
    n = len(scores)
    types = types or ["crack" if label else "good" for label in labels]
    empty = np.zeros((n, 2, 2))
    return Predictions(
        np.array(scores, np.float32),
        empty.astype(np.float32),
        empty.astype(np.uint8),
        np.ones(n, bool),
        np.array(labels),
        tuple(types),
        tuple("abcdefgh"[:n]),
    )


def facts(areas, border=None, contrast=None, category="nut"):
    n = len(areas)
    return pd.DataFrame(
        {
            "category": category,
            "image": [f"{category}{i}" for i in range(n)],
            "area_percent": areas,
            "border_distance": border if border is not None else [0.1] * n,
            "contrast_delta_e": contrast if contrast is not None else list(range(n)),
        }
    )


def test_errors_by_hand_worst_first():
    table = error_table(
        predictions([1.0, 6.5, 4.0, 3.0, 9.0, 0.5], [0, 0, 0, 1, 1, 1]), threshold=4.0
    )
    # b: good at 6.5; c: good exactly at the threshold, which counts as anomalous; d and f: defects
    # below it
    assert table.to_dict("list") == {
        "id": ["f", "b", "d", "c"],
        "defect_type": ["crack", "good", "crack", "good"],
        "kind": ["false_negative", "false_positive", "false_negative", "false_positive"],
        "score": [0.5, 6.5, 3.0, 4.0],
        "margin": [-3.5, 2.5, -1.0, 0.0],
    }
    assert error_table(predictions([1.0, 9.0], [0, 1]), threshold=4.0).empty


def test_a_threshold_between_two_float32_scores_is_compared_in_float64():
    score = np.float32(0.1)  # 0.100000001490116 in float64
    table = error_table(predictions([score, 1.0], [1, 1]), threshold=0.1000000015)
    assert table.id.tolist() == ["a"] and table.margin.item() < 0


def test_bins_by_hand():
    binned = bin_defects(
        facts([5.0, 1.0, 3.0, 2.0, 9.0, 4.0], border=[0.0, 0.2, 0.21, 0.6, 0.61, 1.0])
    )
    assert binned["size"].tolist() == ["large", "small", "medium", "small", "large", "medium"]
    assert binned["border"].tolist() == ["near", "near", "middle", "middle", "far", "far"]
    assert binned["contrast"].tolist() == ["low", "low", "medium", "medium", "high", "high"]
    limits = bin_limits(binned).set_index("property")
    assert limits.loc["size", ["low", "high"]].tolist() == [2.0, 4.0]
    assert tuple(limits.loc["border", ["low", "high"]]) == BORDER_LIMITS


@pytest.mark.parametrize(
    ("areas", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], ["small", "small", "medium", "large"]),
        (
            [1.0, 1.0, 1.0, 1.0, 2.0, 3.0],
            ["small"] * 4 + ["large", "large"],
        ),  # a tie is never torn apart
        ([3.0, 3.0, 3.0, 3.0, 2.0, 1.0], ["medium"] * 4 + ["small", "small"]),
        ([1.0, 2.0], ["all", "all"]),
        ([7.0, 7.0, 7.0, 7.0], ["all"] * 4),
        ([1.0, 2.0, float("nan"), 3.0], ["small", "medium", None, "large"]),
    ],
)
def test_ties_and_few_defects(areas, expected):
    bins = bin_defects(facts(areas))["size"]
    assert [None if pd.isna(name) else name for name in bins] == expected


def test_bins_do_not_depend_on_the_order_and_are_thirds():
    rng = np.random.default_rng(3)
    for n in (3, 7, 30, 101):
        table = facts(rng.lognormal(size=n))
        once, again = bin_defects(table), bin_defects(table.sample(frac=1, random_state=1))
        pd.testing.assert_frame_equal(once, again.sort_index())
        sizes = once["size"].value_counts()
        assert sizes.sum() == n and sizes.max() - sizes.min() <= 1
        # nested: every small one is smaller than every medium one, and so on
        ends = once.groupby("size").area_percent.agg(["min", "max"])
        assert (
            ends["max"]["small"] < ends["min"]["medium"]
            and ends["max"]["medium"] < ends["min"]["large"]
        )


def test_each_category_has_its_own_thirds():
    both = pd.concat(
        [facts([1.0, 2.0, 3.0]), facts([100.0, 200.0, 300.0], category="mat")], ignore_index=True
    )
    assert bin_defects(both)["size"].tolist() == ["small", "medium", "large"] * 2
    assert bin_limits(both.iloc[:0]).empty and bin_defects(both.iloc[:0]).columns[-3:].tolist() == [
        "size",
        "border",
        "contrast",
    ]


def test_recall_by_hand():
    table = recall_by(
        [True, False, True, True, False], ["a", "a", "b", "b", float("nan")], level=0.95
    )
    assert table[["group", "n", "recall"]].to_dict("list") == {
        "group": ["a", "b"],
        "n": [2, 2],
        "recall": [0.5, 1.0],
    }
    # all of n found: the lower end solves p^n = 0.025
    assert table.ci_low[1] == pytest.approx(0.025**0.5) and table.ci_high[1] == 1.0
    # one of two: 1 - (1 - p)^2 = 0.025 below, p^2 = 1 - 0.025 from above
    assert table.ci_low[0] == pytest.approx(1 - 0.975**0.5) and table.ci_high[0] == pytest.approx(
        0.975**0.5
    )


def test_intervals_agree_with_the_beta_distribution():
    for hits, n, level in ((0, 5, 0.95), (3, 7, 0.9), (19, 40, 0.99), (6, 6, 0.8)):
        share, low, high = share_interval(hits, n, level)
        tail = (1 - level) / 2
        assert share == hits / n
        assert low == pytest.approx(stats.beta.ppf(tail, hits, n - hits + 1) if hits else 0.0)
        assert high == pytest.approx(
            stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
        )


def test_recalls_of_the_groups_add_up_to_the_recall():
    rng = np.random.default_rng(0)
    detected, groups = rng.random(50) < 0.6, rng.choice(["a", "b", "c"], 50)
    table = recall_by(detected, groups)
    assert (table.recall * table.n).sum() == pytest.approx(detected.sum()) and table.n.sum() == 50
    assert ((table.ci_low <= table.recall) & (table.recall <= table.ci_high)).all()


def test_who_misses_what():
    detected = {"patchcore": [True, False, False, True], "padim": [True, True, False, False]}
    missed = missed_by(detected)
    assert missed == ["nobody", "patchcore", "patchcore + padim", "padim"]
    assert missed_by_all(detected).tolist() == [False, False, True, False]
    assert missed_by_all({"patchcore": [False, True]}).tolist() == [True, False]
    table = agreement(missed, ["cut", "cut", "hole", "hole"])
    assert table.columns.tolist() == ["nobody", "padim", "patchcore", "patchcore + padim"]
    assert table.loc["cut"].tolist() == [1, 0, 1, 0] and table.loc["hole"].tolist() == [0, 1, 0, 1]
    assert missed_by_all({"patchcore": []}).shape == (0,)


def test_decisions_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match="on the same defect images, found {'a': 2, 'b': 1}"):
        missed_by({"a": [True, False], "b": [True]})
    with pytest.raises(DataError, match="found none"):
        missed_by_all({})


def test_separation_by_hand():
    # cut beats 2 of 4 good images and ties with none; hole beats all four, twice
    labels, scores = [0, 0, 0, 0, 1, 1, 1], [1.0, 2.0, 3.0, 4.0, 2.5, 5.0, 6.0]
    table = separation(labels, scores, ["good"] * 4 + ["cut", "hole", "hole"], seed=0)
    assert table[["defect_type", "n", "image_auroc"]].to_dict("list") == {
        "defect_type": ["cut", "hole"],
        "n": [1, 2],
        "image_auroc": [0.5, 1.0],
    }
    assert table.ks.tolist() == [0.5, 1.0]
    # all 15 orders of 2 defects among 6 images are equally likely; the two extreme ones are as far
    # apart as this
    assert table.ks_pvalue[1] == pytest.approx(2 / 15)
    # delta = 2 AUROC - 1; the overlap is what the Kolmogorov-Smirnov distance leaves
    assert table.cliffs_delta.tolist() == [0.0, 1.0]
    assert table.overlap.tolist() == [0.5, 0.0]
    # cut: no distance of the means. hole: means 5.5 and 2.5, pooled variance (0.5 + 5) / 4
    assert table.hedges_g.tolist() == pytest.approx([0.0, 3 / (5.5 / 4) ** 0.5 * (1 - 3 / 15)])
    intervals = table[[f"{name}_{end}" for name in EFFECTS for end in ("low", "high")]]
    assert intervals.iloc[0].isna().all()  # one image
    assert intervals.iloc[1].notna().all()
    # a perfect separation of few images may be less than perfect on others
    assert -1 < table.cliffs_delta_low[1] < 1 == table.cliffs_delta_high[1]
    assert table.hedges_g_low[1] < table.hedges_g[1] < table.hedges_g_high[1]


def test_scores_that_are_all_the_same_do_not_separate():
    row = separation([0, 0, 1, 1], [0.1] * 4, ["good", "good", "cut", "cut"], seed=0).iloc[0]
    assert (row.image_auroc, row.cliffs_delta, row.overlap) == (0.5, 0.0, 1.0)
    assert np.isnan([row.hedges_g, row.hedges_g_low, row.hedges_g_high]).all()


def test_separation_does_not_move_with_the_scale():
    rng = np.random.default_rng(5)
    labels, scores = np.repeat([0, 1], 20), rng.normal(size=40)
    types = ["good"] * 20 + ["a"] * 9 + ["b"] * 11
    ranked = ["image_auroc", "ks", "cliffs_delta", "cliffs_delta_low", "overlap"]
    plain = separation(labels, scores, types, seed=0)
    curved = separation(labels, np.exp(2 * scores), types, seed=0)
    pd.testing.assert_frame_equal(plain[ranked], curved[ranked])
    # a distance of means moves with the shape of the scale, not with its unit
    scaled = separation(labels, 3 * scores - 7, types, seed=0)
    pd.testing.assert_frame_equal(plain, scaled)


def known_defects(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return facts(rng.lognormal(size=n), border=rng.random(n), contrast=rng.random(n)).assign(
        margin=rng.normal(size=n), defect_type=["cut", "hole", "print"] * (n // 3)
    )


def test_a_margin_that_follows_the_area_is_found_whatever_its_shape():
    table = known_defects().assign(margin=lambda t: np.log(t.area_percent) - 5)
    tests = margin_tests(table).set_index("property")
    assert (
        tests.statistic["size"] == pytest.approx(1.0)
        and tests.p["size"] < 1e-6
        and tests.n["size"] == 12
    )
    pd.testing.assert_frame_equal(
        margin_tests(table), margin_tests(table.assign(area_percent=table.area_percent**3))
    )


def test_rank_tests_by_hand():
    table = facts(
        [1.0, 2.0, 3.0, 4.0], border=[0.1, 0.2, 0.3, 0.4], contrast=[4.0, 3.0, 2.0, 1.0]
    ).assign(margin=[10.0, 30.0, 20.0, 40.0], defect_type=["a", "a", "b", "b"])
    tests = margin_tests(table).set_index("property")
    # ranks 1 3 2 4 against 1 2 3 4: rho = 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15) = 0.8
    assert tests.statistic[["size", "border", "contrast"]].tolist() == pytest.approx(
        [0.8, 0.8, -0.8]
    )
    # rank sums 4 and 6: H = 12 / (4 * 5) * (16 / 2 + 36 / 2) - 3 * 5 = 0.6
    assert tests.statistic["defect_type"] == pytest.approx(0.6)
    assert tests.p["defect_type"] == pytest.approx(stats.chi2.sf(0.6, df=1))


def test_chance_is_called_a_pattern_no_more_often_than_said():
    p_values = [margin_tests(known_defects(30, seed)).p for seed in range(200)]
    share = (np.array(p_values) <= 0.05).mean(axis=0)  # (4,) questions
    assert (share > 0.005).all() and (share < 0.1).all()  # 0.05 +- 3 standard errors


def test_what_cannot_be_tested_has_no_p_value():
    table = known_defects(3)
    unmasked = margin_tests(
        table.assign(area_percent=np.nan, border_distance=np.nan, contrast_delta_e=np.nan)
    )
    assert unmasked.n.tolist() == [0, 0, 0, 3] and unmasked.p.isna().tolist() == [
        True,
        True,
        True,
        False,
    ]
    flat = margin_tests(table.assign(margin=1.0))
    assert flat.p.isna().all() and flat.statistic.isna().all()
    assert margin_tests(table.assign(defect_type="cut")).p.isna().tolist() == [
        False,
        False,
        False,
        True,
    ]
