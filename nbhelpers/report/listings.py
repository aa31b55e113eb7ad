"""The tables of rows of the tidy table that have one detail in common, such as ``rule``."""

from __future__ import annotations

from dataclasses import dataclass

from nbhelpers.report.formats import Cell, Field, ReportTable, Row, made_table
from nbhelpers.results.numbers import Number, Results, label
from nbhelpers.results.table import HEAD_METRICS, MACRO, PROMISE, RECALIBRATED, TRANSFER


@dataclass(frozen=True)
class Listing:
    """A table of rows that have one detail in common.

    Attributes:
        name: Stem of its files.
        caption: What is in it and how to read it, in whole sentences.
        detail: The ``detail`` of its rows in the tidy table.
        metrics: One column each.
        images: Whether the number of images is a column.
    """

    name: str
    caption: str
    detail: str
    metrics: tuple[str, ...]
    images: bool = True


THRESHOLD_LISTINGS = (
    Listing(
        "threshold_rules",
        "Each rule sets its threshold on the validation images and is judged on the test images.",
        "rule",
        ("f1", "recall", "specificity", "balanced_accuracy", "threshold", "degenerate"),
    ),
    Listing(
        "conformal",
        "The false positive rate that was promised on the validation images and the one that was "
        "realised on the good test images, with Clopper-Pearson intervals.",
        PROMISE,
        ("realised_fpr", "calibration_n", "recall"),
    ),
    Listing(
        "recalibration",
        "The realised false positive rate after the threshold was calibrated again on this many "
        "good images of the new domain.",
        RECALIBRATED,
        ("realised_fpr",),
    ),
    Listing(
        "zones",
        "Pixel F1 with one threshold for the whole map and with one threshold for each of its "
        "zones.",
        "thresholds",
        ("pixel_f1",),
    ),
    Listing(
        "transfer_domains",
        "Each threshold is applied to images of another domain; there is one model per category.",
        TRANSFER,
        ("fpr", "fnr", "specificity"),
        images=False,
    ),
    Listing(
        "transfer_categories",
        "The threshold of one category is applied to images of another; one model serves all "
        "categories.",
        "threshold_from",
        ("fpr", "fnr", "specificity"),
        images=False,
    ),
    Listing(
        "shortcut",
        "The share of patches whose nearest neighbour in the common memory bank comes from "
        "another category.",
        "patches",
        ("other_category_share",),
    ),
    Listing("bank", "Each category's share of the common memory bank.", "", ("bank_share",)),
)
ERROR_LISTINGS = (
    *(
        Listing(
            f"errors_{kind}",
            f"Recall by {label(kind)} at the deployed threshold.",
            kind,
            ("recall",),
        )
        for kind in ("defect_type", "size", "border", "contrast")
    ),
    Listing(
        "errors_shared",
        "The share of defect images that every method misses.",
        "",
        ("missed_by_all",),
    ),
    Listing(
        "separation",
        "How far the image scores of each defect type stand out from those of the good images of "
        "the same category, at no threshold. Cliff's delta is 1 where every defect image scores "
        "above every good one and 0 at chance (interval by DeLong); Hedges' g is the distance of "
        "the means in standard deviations (bootstrap interval); the overlap is 0 where one "
        "threshold separates the two, and too low where there are few images. The p values are "
        "those of the Kolmogorov-Smirnov test; images are the good ones and those of the type.",
        "defect_type",
        ("cliffs_delta", "hedges_g", "overlap", "p_ks", "p_ks_holm"),
    ),
)
AUTOENCODER_LISTINGS = (
    Listing(
        "heads",
        "The heads of each autoencoder on clean test images. They are only judged here: nothing "
        "is chosen by these numbers.",
        "head",
        HEAD_METRICS,
    ),
    Listing(
        "reconstruction",
        "How close reconstructions come to clean validation images, for good and for defect "
        "images. SSIM is high and MSE and L1 are low where they are close; pixels lie in [-1, 1]. "
        "Nothing is chosen by these numbers.",
        "images",
        ("ssim", "mse", "l1"),
    ),
)


def listed_table(results: Results, listing: Listing) -> ReportTable | None:
    """One row per scenario, method, category and value of the detail, one column per metric."""
    by_name: dict[tuple[str, str, str, str], dict[str, Number]] = {}
    for number in results.where(detail=listing.detail, against="", against_method=""):
        if number.metric in listing.metrics:
            key = (number.scenario, number.method, number.category, number.detail_value)
            by_name.setdefault(key, {})[number.metric] = number
    if not by_name:
        return None
    rows: list[Row] = []
    for (scenario, method, category, _), numbers in by_name.items():
        first = next(iter(numbers.values()))
        details = [
            Field(first, name) if name in ("target", "recalibrated_on") else text
            for name, text in first.details.items()
        ]
        cells: list[Cell] = [numbers.get(metric) for metric in listing.metrics]
        if "degenerate" in numbers and category != MACRO:
            # a truth value; its macro average is a share
            useless = "yes" if numbers["degenerate"].value else "no"
            cells[listing.metrics.index("degenerate")] = useless
        images = Field(first, "n_images") if listing.images else None
        rows.append((scenario, method, category, *details, *cells, images))
    columns = ("scenario", "method", "category", *first.details, *listing.metrics, "n_images")
    return made_table(listing.name, listing.caption, columns, rows)
