"""Which images are judged wrongly, and which kinds of defect are missed.

A bin is a property of the defect on its clean image, so that every scenario has the same bins and
a shifted twin keeps those of its source. Recall says what the deployed threshold does.
``separation`` and the rank tests of the margin do not depend on the threshold: where a shift
raises all scores, recall rises although no defect has become easier to see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import Seed, percentile_interval, score_summary, share_interval
from nbhelpers.evaluation.effects import cliffs_delta, hedges_g, hedges_g_draws, overlap
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.significance import delong_interval
from nbhelpers.predictions import Predictions

#: Each property of a defect, with the column of ``exploration.describe_defects`` that it is read
#: from and its bins in order.
PROPERTIES = {
    "size": ("area_percent", ("small", "medium", "large")),
    "border": ("border_distance", ("near", "middle", "far")),
    "contrast": ("contrast_delta_e", ("low", "medium", "high")),
}
#: ``near`` is within a tenth of the shorter side, which the shift can move out of the frame. The
#: limits are the same in every category: tertiles would call a defect in the middle of a centred
#: object near.
BORDER_LIMITS = (0.2, 0.6)
#: The bin of all defects where there are too few different values for three bins.
ONE_BIN = "all"
#: What ``separation`` says of each defect type.
SEPARATION_COLUMNS = (
    "defect_type",
    "n",
    "image_auroc",
    "ks",
    "ks_pvalue",
    "cliffs_delta",
    "cliffs_delta_low",
    "cliffs_delta_high",
    "hedges_g",
    "hedges_g_low",
    "hedges_g_high",
    "overlap",
)
#: The group of defects that no method misses.
NOBODY = "nobody"


def error_table(predictions: Predictions, threshold: float) -> pd.DataFrame:
    """False positives and false negatives, the one farthest from the threshold first.

    Args:
        predictions: Test predictions of one method and category.
        threshold: The deployed threshold.

    Returns:
        One row per error. Columns: id, defect_type, kind (``false_positive`` or
        ``false_negative``), score, margin (score minus threshold).
    """
    scores = predictions.image_scores.astype(np.float64)
    flagged = decide(scores, threshold)
    table = pd.DataFrame(
        {
            "id": predictions.ids,
            "defect_type": predictions.defect_types,
            "kind": np.where(flagged, "false_positive", "false_negative"),
            "score": scores,
            "margin": scores - threshold,
        }
    )
    wrong = table[flagged != predictions.labels.astype(bool)]
    return wrong.sort_values("margin", key=lambda margin: -margin.abs(), kind="stable").reset_index(
        drop=True
    )


def bin_limits(facts: pd.DataFrame) -> pd.DataFrame:
    """The limits of the bins of each category and property.

    For ``size`` and ``contrast`` they are the tertiles of the category's defects. Both limits are
    values that occur, so that no rounding decides about a tie. With fewer than three different
    values the limits are NaN, and all defects are in one bin.

    Args:
        facts: One row per clean defect image, as ``exploration.describe_defects`` gives.

    Returns:
        One row per category and property: category, property, low, high. The first bin holds
        values up to ``low``, and the last those above ``high``.
    """
    rows = []
    for category, defects in facts.groupby("category", sort=False):
        for name, (column, _) in PROPERTIES.items():
            values = np.sort(defects[column].dropna().to_numpy(np.float64))
            low, high = float("nan"), float("nan")
            if name == "border":
                low, high = BORDER_LIMITS
            elif len(np.unique(values)) >= 3:
                low = values[math.ceil(len(values) / 3) - 1]
                high = values[math.ceil(2 * len(values) / 3) - 1]
            rows.append({"category": category, "property": name, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["category", "property", "low", "high"])


def bin_defects(facts: pd.DataFrame) -> pd.DataFrame:
    """Add the bin of each defect to ``facts``.

    Args:
        facts: One row per clean defect image, as ``exploration.describe_defects`` gives.

    Returns:
        ``facts`` with the columns ``size``, ``border`` and ``contrast``; the limits are those of
        ``bin_limits``. The bin is NaN where the property could not be measured, and ``all`` where
        there are too few different values.
    """
    binned = facts.copy()
    limits = bin_limits(facts)
    for name, (column, bins) in PROPERTIES.items():
        ends = limits[limits.property == name].set_index("category")
        values = facts[column].to_numpy(float)
        low = facts.category.map(ends.low).to_numpy(float)
        high = facts.category.map(ends.high).to_numpy(float)
        chosen = np.select([values <= low, values <= high], bins[:2], bins[2]).astype(object)
        chosen[np.isnan(low)] = ONE_BIN
        chosen[np.isnan(values)] = np.nan
        binned[name] = chosen
    return binned


def recall_by(
    detected: ArrayLike, groups: Sequence[str | float], level: float = 0.95
) -> pd.DataFrame:
    """Recall of each group of defect images with its Clopper-Pearson interval.

    Args:
        detected: ``(N,)`` bool, one per defect image.
        groups: N names; images without one (NaN) are left out.
        level: Level of the intervals.

    Returns:
        One row per group, sorted by name: group, n, recall, ci_low, ci_high.
    """
    table = pd.DataFrame({"detected": np.asarray(detected, bool), "group": list(groups)})
    rows = []
    for group, images in table.groupby("group"):
        recall, low, high = share_interval(int(images.detected.sum()), len(images), level)
        rows.append(
            {"group": group, "n": len(images), "recall": recall, "ci_low": low, "ci_high": high}
        )
    return pd.DataFrame(rows, columns=["group", "n", "recall", "ci_low", "ci_high"])


def missed_by(detected: Mapping[str, ArrayLike]) -> list[str]:
    """Which methods miss each defect image.

    Args:
        detected: Method to ``(N,)`` bool of the same N defect images.

    Returns:
        N texts: the methods, joined by `` + `` in the order of the mapping, or ``nobody``.

    Raises:
        DataError: There is no method, or the methods have different numbers of images.
    """
    sizes = {method: len(np.asarray(decisions)) for method, decisions in detected.items()}
    if len(set(sizes.values())) != 1:
        raise DataError(
            "expected the decisions of at least one method on the same defect images, found "
            f"{sizes or 'none'}; take all of them from one scenario and category"
        )
    # (N, methods)
    missed = ~np.column_stack([np.asarray(decisions, bool) for decisions in detected.values()])
    names = np.array(list(detected))
    return [" + ".join(names[row]) or NOBODY for row in missed]


def missed_by_all(detected: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
    """The hard cases: whether every method misses a defect image.

    Args:
        detected: See ``missed_by``.

    Returns:
        ``(N,)`` bool.

    Raises:
        DataError: See ``missed_by``.
    """
    everybody = " + ".join(detected)
    return np.array([missed == everybody for missed in missed_by(detected)], bool)


def agreement(missed: Sequence[str], groups: Sequence[str]) -> pd.DataFrame:
    """Count the defect images of each group by the methods that miss them.

    Args:
        missed: The methods that miss each image, see ``missed_by``.
        groups: The group of each image, such as its defect type.

    Returns:
        One row per group, one column per combination of methods.
    """
    table = pd.crosstab(
        pd.Series(list(groups), name="group"), pd.Series(list(missed), name="missed by")
    )
    order = sorted(table.columns, key=lambda name: (name != NOBODY, name.count(" + "), name))
    return table[order]


def separation(
    labels: ArrayLike,
    scores: ArrayLike,
    defect_types: Sequence[str],
    *,
    seed: Seed,
    draws: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """How far the scores of each defect type stand out from those of the good images.

    No threshold is involved. A type with a single image has no intervals, since one image cannot
    say how much its type varies.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images, of one category.
        scores: ``(N,)`` raw image scores of one detector.
        defect_types: N names.
        seed: Seed of the resamples of Hedges' g.
        draws: Number of these resamples.
        level: Level of the intervals.

    Returns:
        One row per defect type, sorted by name, each against all good images: ``defect_type``;
        ``n``, its number of images; ``image_auroc``; ``ks`` and ``ks_pvalue`` (two-sample
        Kolmogorov-Smirnov test); ``cliffs_delta`` with ``cliffs_delta_low`` and
        ``cliffs_delta_high`` (DeLong's interval of the AUROC); ``hedges_g`` with ``hedges_g_low``
        and ``hedges_g_high`` (bootstrap); ``overlap``. See ``effects`` for the last three. What
        the scores do not allow is NaN.

    Raises:
        DataError: One of the classes is missing, or labels and scores do not fit.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    names = np.asarray(defect_types)
    rows = []
    for name in np.unique(names[labels == 1]):
        chosen = (labels == 0) | (names == name)
        truth, values = labels[chosen], scores[chosen]
        summary = score_summary(truth, values)
        delta_low, delta_high, g_low, g_high = (float("nan"),) * 4
        if min(summary["good_n"], summary["defect_n"]) > 1:
            delta_low, delta_high = (2 * end - 1 for end in delong_interval(truth, values, level))
            sample = hedges_g_draws(truth, values, draws=draws, seed=seed)
            if not np.isnan(sample).all():
                g_low, g_high = percentile_interval(sample[~np.isnan(sample)], level)
        rows.append(
            {
                "defect_type": str(name),
                "n": summary["defect_n"],
                "image_auroc": float(roc_auc_score(truth, values)),
                "ks": summary["ks"],
                "ks_pvalue": summary["ks_pvalue"],
                "cliffs_delta": cliffs_delta(truth, values),
                "cliffs_delta_low": delta_low,
                "cliffs_delta_high": delta_high,
                "hedges_g": hedges_g(truth, values),
                "hedges_g_low": g_low,
                "hedges_g_high": g_high,
                "overlap": overlap(truth, values),
            }
        )
    return pd.DataFrame(rows, columns=list(SEPARATION_COLUMNS))


def margin_tests(defects: pd.DataFrame) -> pd.DataFrame:
    """Test whether the margin depends on a defect's area, contrast, border distance, or type.

    The first three are tested by Spearman's rank correlation (so that the logarithm of the area
    would give the same), and the type by the Kruskal-Wallis test. All use the ranks of one
    method's margins within one category, so that units do not matter.

    Args:
        defects: One row per defect image of one method and category: margin, defect_type and the
            measured columns of ``PROPERTIES`` (NaN where there is no mask).

    Returns:
        One row per question: property, test, n, statistic, p. The last two are NaN where the data
        allow no test (fewer than three images, or all of one value or type).
    """
    rows = []
    for name, (column, _) in PROPERTIES.items():
        known = defects[defects[column].notna()]
        statistic, p = float("nan"), float("nan")
        if len(known) >= 3 and known[column].nunique() > 1 and known.margin.nunique() > 1:
            statistic, p = stats.spearmanr(known[column], known.margin)
        rows.append(
            {"property": name, "test": "Spearman", "n": len(known), "statistic": statistic, "p": p}
        )
    groups = [images.margin.to_numpy() for _, images in defects.groupby("defect_type")]
    statistic, p = float("nan"), float("nan")
    if len(groups) > 1 and len(defects) >= 3 and defects.margin.nunique() > 1:
        statistic, p = stats.kruskal(*groups)
    rows.append(
        {
            "property": "defect_type",
            "test": "Kruskal",
            "n": len(defects),
            "statistic": statistic,
            "p": p,
        }
    )
    return pd.DataFrame(rows).astype({"statistic": float, "p": float})
