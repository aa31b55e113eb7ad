"""One model for all categories: thresholds carried from category to category, and the
identical-shortcut question.

The shortcut (You et al., UniAD, NeurIPS 2022): a model of all categories could call a defect of one
normal because another category's normal patches look like it. Evidence comes from test images,
never from the model's own training images (FEATURES P23): which category does the nearest bank
patch of a defect patch come from?
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import cell, evaluate_cell, tested
from nbhelpers.analyses.thresholds import transfer_entries
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.evaluation.cell import entry
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import detailed, to_rows
from nbhelpers.scenarios import GLOBAL
from nbhelpers.study import Study

# a patch is a defect patch where its cell of the feature grid is a defect by at least this share
COVERED = 0.5


def patch_labels(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Patches of ``(N, H, W)`` masks: 1 defect (cell covered by half or more), 0 normal (by
    nothing), -1 between.
    """
    height, width = masks.shape[1:]
    rows_of, columns_of = np.arange(height) * grid[0] // height, np.arange(width) * grid[1] // width
    index = (rows_of[:, None] * grid[1] + columns_of).ravel()
    size = np.bincount(index, minlength=grid[0] * grid[1])
    covered = np.stack(
        [np.bincount(index, weights=mask.ravel(), minlength=size.size) / size for mask in masks]
    )
    labels = np.where(covered >= COVERED, 1, np.where(covered == 0, 0, -1))
    return labels.reshape(len(masks), *grid)


def nearest_categories(study: Study, method: str, category: str) -> tuple[Predictions, np.ndarray]:
    """The global model's test predictions of a category, and the category behind each patch's
    nearest bank patch.

    Returns:
        Predictions, and ``(N, h, w)`` indices into ``study.categories``; empty where the method
        keeps no patches.
    """
    test = tested(study, "global", method, category)
    if test.nearest is None:
        return test, np.empty((0, 0, 0), int)
    place = {name: index for index, name in enumerate(study.categories)}
    owners = np.array(
        [place[sample.category] for sample in study.training(category, fitted_on=GLOBAL)]
    )
    return test, owners[test.nearest]


def shortcut_part(study: Study) -> Part:
    """Rows ``other_category_share`` of ``patches`` ``defect`` and ``normal``: nearest bank patch of
    another category.

    The interval is the one of the images' mean share (percentile bootstrap over images: patches of
    one image are not independent). Only for methods that keep patches.
    """

    def make() -> list[dict[str, Any]]:
        found = []
        for method, category in study.cells:
            test, owners = nearest_categories(study, method, category)
            if not owners.size:
                continue
            foreign = owners != study.categories.index(category)
            labels = patch_labels(test.masks, owners.shape[1:])
            metrics = {}
            for name, label in (("defect", 1), ("normal", 0)):
                usable = (labels == label) & test.pixel_valid[:, None, None]
                counts, hits = usable.sum(axis=(1, 2)), (foreign & usable).sum(axis=(1, 2))
                seen = counts > 0
                if seen.any():
                    metrics[detailed("other_category_share", patches=name)] = _clustered(
                        study, hits[seen], counts[seen]
                    )
            found += to_rows("global", method, category, study.config.seed, metrics)
        return found

    return make_part(
        study,
        __name__,
        "shortcut",
        make,
        cells=_keys(study),
        confidence=study.config.evaluation.confidence,
        draws=study.config.evaluation.bootstrap_draws,
    )


def _keys(study: Study) -> list[str]:
    """Keys of the global model's cells."""
    return [cell(study, "global", *asked).key for asked in study.cells]


def _clustered(study: Study, hits: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Share of patches that hit, with the interval of redrawing whole images."""
    settings = study.config.evaluation
    picks = np.random.default_rng(study.config.seed).integers(
        len(hits), size=(settings.bootstrap_draws, len(hits))
    )
    draws = hits[picks].sum(axis=1) / counts[picks].sum(axis=1)
    return entry(hits.sum() / counts.sum(), draws, len(hits), settings.confidence)


def bank_part(study: Study) -> Part:
    """Rows ``bank_share``: how much of the global memory bank is each category's, where a method
    has a bank.
    """

    def make() -> list[dict[str, Any]]:
        found = []
        for method in study.config.methods:
            stats = study.detector_stats(method, "", fitted_on=GLOBAL)
            for category in study.categories:
                if f"bank_size/{category}" in stats:
                    share = stated(
                        stats[f"bank_size/{category}"] / stats["bank_size"], stats["bank_size"]
                    )
                    found += to_rows(
                        "global", method, category, study.config.seed, {"bank_share": share}
                    )
        return found

    fitted = [study.fitted(method, "", fitted_on=GLOBAL).key for method in study.config.methods]
    return make_part(study, __name__, "bank", make, detectors=fitted)


def category_transfer_part(study: Study) -> Part:
    """Rows ``fpr``, ``fnr`` and ``specificity`` with a ``threshold_from`` of the global model: a
    category's threshold on every category's images.
    """

    def make() -> list[dict[str, Any]]:
        found = []
        for method in study.config.methods:
            values = {
                name: evaluate_cell(study, "global", method, name)["threshold"]["value"]
                for name in study.categories
            }
            tests = {name: tested(study, "global", method, name) for name in study.categories}
            for category, metrics in transfer_entries(values, tests).items():
                found += to_rows("global", method, category, study.config.seed, metrics)
        return found

    return make_part(study, __name__, "category_transfer", make, cells=_keys(study))


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    if "global" not in study.config.scenarios:
        return []
    return [shortcut_part(study), bank_part(study), category_transfer_part(study)]


def shortcut(study: Study) -> pd.DataFrame:
    """Shares of patches whose nearest bank patch is another category's, and of the bank, as tidy
    rows.
    """
    return pd.concat([part(study).rows() for part in (shortcut_part, bank_part)], ignore_index=True)


def category_transfer(study: Study) -> pd.DataFrame:
    """The threshold-transfer matrix between categories, as tidy rows."""
    return category_transfer_part(study).rows()


def worst_matches(study: Study, method: str, count: int) -> list[tuple[str, int, float]]:
    """Test images whose defect patches match another category most: (category, place in its
    predictions, share).
    """
    found = []
    for category in study.categories:
        test, owners = nearest_categories(study, method, category)
        if not owners.size:
            continue
        defect = patch_labels(test.masks, owners.shape[1:]) == 1
        foreign = (owners != study.categories.index(category)) & defect
        for index in np.flatnonzero(defect.any(axis=(1, 2)) & test.pixel_valid):
            found.append((category, int(index), float(foreign[index].sum() / defect[index].sum())))
    return sorted(found, key=lambda item: -item[2])[:count]
