"""One model for all categories: thresholds carried between them, and the identical shortcut.

The shortcut (You et al., UniAD, NeurIPS 2022): a model of all categories could call a defect of
one category normal because normal patches of another category look like it. The question is which
category the nearest bank patch of a defect patch comes from. It is asked on test images only,
because the bank holds patches of the training images themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import Evaluated, cell, evaluate_cell, tested
from nbhelpers.analyses.thresholds import transfer_entries
from nbhelpers.evaluation.bootstrap import entry, stated
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import detailed, to_rows
from nbhelpers.scenarios import GLOBAL
from nbhelpers.study import Artefact, Study

#: A patch is a defect patch where a defect covers at least this share of its square.
COVERED = 0.5


def patch_labels(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Label the patches of the feature grid by the defects in the masks.

    Args:
        masks: ``(N, H, W)``, 0 or 1.
        grid: Height and width ``(h, w)`` of the feature grid.

    Returns:
        ``(N, h, w)``: 1 for a defect patch (half of it or more is covered by a defect), 0 for a
        normal patch (nothing is covered), and -1 for one between.
    """
    height, width = masks.shape[1:]
    row_of = np.arange(height) * grid[0] // height
    column_of = np.arange(width) * grid[1] // width
    index = (row_of[:, None] * grid[1] + column_of).ravel()
    size = np.bincount(index, minlength=grid[0] * grid[1])
    covered = np.stack(
        [np.bincount(index, weights=mask.ravel(), minlength=size.size) / size for mask in masks]
    )
    labels = np.where(covered >= COVERED, 1, np.where(covered == 0, 0, -1))
    return labels.reshape(len(masks), *grid)


def nearest_categories(study: Study, method: str, category: str) -> tuple[Predictions, np.ndarray]:
    """The global model's test predictions, and the category that each patch's neighbour is from.

    Returns:
        The predictions of the category, and ``(N, h, w)`` indices into ``study.categories``: the
        category of the bank patch that is nearest to each patch. The array is empty where the
        method keeps no patches.
    """
    test = tested(study, "global", method, category)
    if test.nearest is None:
        return test, np.empty((0, 0, 0), int)
    index_of = {name: index for index, name in enumerate(study.categories)}
    owners = np.array(
        [index_of[sample.category] for sample in study.training(category, fitted_on=GLOBAL)]
    )
    return test, owners[test.nearest]


def shortcut_part(study: Study) -> Part:
    """Rows ``other_category_share`` with the detail ``patches`` (``defect`` and ``normal``).

    They give the share of patches whose nearest bank patch is from another category. The interval
    redraws whole images (percentile bootstrap), because the patches of one image are not
    independent. There are rows only for methods that keep patches.
    """

    def make() -> list[dict[str, Any]]:
        rows = []
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
            rows += to_rows("global", method, category, study.config.seed, metrics)
        return rows

    return make_part(
        study,
        __name__,
        "shortcut",
        make,
        cells=_cells(study),
        confidence=study.config.evaluation.confidence,
        draws=study.config.evaluation.bootstrap_draws,
    )


def _cells(study: Study) -> list[Artefact[Evaluated]]:
    """The global model's cells."""
    return [cell(study, "global", method, category) for method, category in study.cells]


def _clustered(study: Study, hits: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """The share ``hits / counts`` over all images, with an interval that redraws whole images.

    Args:
        study: Its settings are used.
        hits: ``(N,)`` patches of each image that are counted in the share.
        counts: ``(N,)`` patches of each image.
    """
    settings = study.config.evaluation
    picks = np.random.default_rng(study.config.seed).integers(
        len(hits), size=(settings.bootstrap_draws, len(hits))
    )
    draws = hits[picks].sum(axis=1) / counts[picks].sum(axis=1)
    return entry(hits.sum() / counts.sum(), draws, len(hits), settings.confidence)


def bank_part(study: Study) -> Part:
    """Rows ``bank_share``: each category's share of the global memory bank, where there is one."""

    def make() -> list[dict[str, Any]]:
        rows = []
        for method in study.config.methods:
            stats = study.detector_stats(method, "", fitted_on=GLOBAL)
            for category in study.categories:
                if f"bank_size/{category}" in stats:
                    size = int(stats["bank_size"])
                    share = stated(stats[f"bank_size/{category}"] / size, size)
                    rows += to_rows(
                        "global", method, category, study.config.seed, {"bank_share": share}
                    )
        return rows

    fitted = [study.fitted(method, "", fitted_on=GLOBAL) for method in study.config.methods]
    return make_part(study, __name__, "bank", make, detectors=fitted)


def category_transfer_part(study: Study) -> Part:
    """Rows ``fpr``, ``fnr`` and ``specificity`` of the global model, with ``threshold_from``.

    They apply the threshold of each category to the images of every category.
    """

    def make() -> list[dict[str, Any]]:
        rows = []
        for method in study.config.methods:
            values = {
                name: evaluate_cell(study, "global", method, name)["threshold"]["value"]
                for name in study.categories
            }
            tests = {name: tested(study, "global", method, name) for name in study.categories}
            for category, metrics in transfer_entries(values, tests).items():
                rows += to_rows("global", method, category, study.config.seed, metrics)
        return rows

    return make_part(study, __name__, "category_transfer", make, cells=_cells(study))


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    if "global" not in study.config.scenarios:
        return []
    return [shortcut_part(study), bank_part(study), category_transfer_part(study)]


def shortcut(study: Study) -> pd.DataFrame:
    """``shortcut_part`` and ``bank_part`` as rows of the tidy table."""
    return pd.concat([part(study).rows() for part in (shortcut_part, bank_part)], ignore_index=True)


def category_transfer(study: Study) -> pd.DataFrame:
    """The threshold-transfer matrix between categories, as rows of the tidy table."""
    return category_transfer_part(study).rows()


def worst_matches(study: Study, method: str, count: int) -> list[tuple[str, int, float]]:
    """The test images whose defect patches match another category most.

    Returns:
        At most ``count`` triples, the highest share first: category, index in its predictions,
        and the share of defect patches whose nearest bank patch is from another category.
    """
    matches = []
    for category in study.categories:
        test, owners = nearest_categories(study, method, category)
        if not owners.size:
            continue
        defect = patch_labels(test.masks, owners.shape[1:]) == 1
        foreign = (owners != study.categories.index(category)) & defect
        for index in np.flatnonzero(defect.any(axis=(1, 2)) & test.pixel_valid):
            share = float(foreign[index].sum() / defect[index].sum())
            matches.append((category, int(index), share))
    return sorted(matches, key=lambda match: -match[2])[:count]
