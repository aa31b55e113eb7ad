"""Look numbers up in the tidy table and write them as text.

Every table, figure and sentence of the report reads the table through ``Results``, which is made
once and handed on.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from nbhelpers.errors import DataError
from nbhelpers.methods import METHOD_ORDER, METHODS, architecture_of
from nbhelpers.results.table import (
    COLUMNS,
    KEYS,
    MACRO,
    NUMBERS,
    TEXTS,
    detailed,
    details_of,
    macro_name,
)
from nbhelpers.scenarios import SCENARIOS

T = TypeVar("T")

#: Scenarios in the order of the report; any other scenario comes after them.
SCENARIO_ORDER = tuple(SCENARIOS)
#: Names in the column ``scenario`` that are not scenarios of the protocol.
BLOCKS = ("data", "seeds", "transfer", "reconstruction")
#: Below this, a Holm-corrected p value is called a difference.
ALPHA = 0.05
#: A difference below this is rounding noise: sums depend on the order of their terms.
NOTHING = 1e-6
#: Metrics that count something and are printed without decimals.
COUNTS = (
    "train_good",
    "val_good",
    "val_defect",
    "test_good",
    "test_defect",
    "test_masks",
    "calibration_n",
    "parameters",
)
LABELS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "f1": "F1",
    "trivial_f1": "trivial F1",
    "f1_max": "best F1",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1": "pixel F1",
    "aupro": "AUPRO 0.3",
    "aupro_005": "AUPRO 0.05",
    "aupimo": "AUPIMO",
    "ece": "ECE",
    "fpr": "FPR",
    "fnr": "FNR",
    "p_delong": "p (DeLong)",
    "p_delong_holm": "Holm p (DeLong)",
    "p_permutation": "p (permutation)",
    "p_permutation_holm": "Holm p (permutation)",
    "p_mcnemar": "p (McNemar)",
    "p_mcnemar_holm": "Holm p (McNemar)",
    "realised_fpr": "realised FPR",
    "target": "promised FPR",
    "calibration_n": "calibration images",
    "n_images": "images",
    "pixel_l1": "pixel L1",
    "pixel_l2": "pixel L2",
    "ssim": "SSIM",
    "mse": "MSE",
    "l1": "L1",
    "images": "reconstructed",
    "cliffs_delta": "Cliff's delta",
    "hedges_g": "Hedges' g",
    "ks": "KS distance",
    "p_ks": "p (KS)",
    "p_ks_holm": "Holm p (KS)",
} | {name: row.label for name, row in METHODS.items()}


def label(name: str, against: str = "") -> str:
    """A name of the tidy table as it is printed: ``image_auroc`` becomes "image AUROC".

    Args:
        name: A metric, a method, a scenario or a column.
        against: What was subtracted; "" where nothing was.
    """
    words = LABELS.get(name, name.replace("_", " "))
    return f"{words} - {label(against)}" if against else words


def read_metrics(path: Path) -> pd.DataFrame:
    """Read the tidy table from a file; a category called 007 or None keeps its name."""
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXTS, str) | {"macro": bool},
        keep_default_na=False,
        na_values=dict.fromkeys(NUMBERS, [""]),
    )


@dataclass(frozen=True)
class Number:
    """One row of the tidy table; an end of an interval or a count that is not stored is None."""

    scenario: str
    against: str
    method: str
    against_method: str
    category: str
    macro: bool
    seed: int
    metric: str
    detail: str
    detail_value: str
    value: float
    ci_low: float | None
    ci_high: float | None
    n_images: int | None

    @property
    def key(self) -> str:
        """The row's name: a JSON array of its values in the columns ``KEYS``."""
        return json.dumps([getattr(self, name) for name in KEYS], ensure_ascii=False)

    @property
    def details(self) -> dict[str, str]:
        """What the metric is restricted to: ``{"rule": "mad"}``."""
        return details_of(self.detail, self.detail_value)

    @property
    def is_difference(self) -> bool:
        """Whether another scenario or method was subtracted."""
        return bool(self.against or self.against_method)

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval, and it is wider than the value itself."""
        if self.ci_low is None or self.ci_high is None:
            return False
        if self.is_difference and self.is_nothing:
            return False
        return not self.ci_low == self.ci_high == self.value

    @property
    def is_nothing(self) -> bool:
        """Whether the value and both ends of its interval are 0: nothing moved on any image."""
        return all(
            end is not None and abs(end) < NOTHING
            for end in (self.value, self.ci_low, self.ci_high)
        )

    @property
    def sign(self) -> int | None:
        """On which side of 0 the interval lies.

        Returns:
            1 above, -1 below, 0 where it includes 0, and None where there is no interval.
        """
        if self.ci_low is None or self.ci_high is None:
            return None
        if self.ci_low > NOTHING:
            return 1
        return -1 if self.ci_high < -NOTHING else 0

    def text(self, field: str = "value") -> str:
        """One field of the row as it is printed.

        Args:
            field: ``value``, ``ci_low``, ``ci_high``, ``n_images``, ``seed``, or the name of a
                detail.

        Raises:
            DataError: The row has no such field.
        """
        if field in self.details:
            return self.details[field]
        number = getattr(self, field, None)
        if number is None:
            raise DataError(
                f"{self.key}: expected a number in '{field}', found none; run the notebooks again"
            )
        if field in ("n_images", "seed") or self.metric in COUNTS:
            return f"{number:.0f}"
        if self.metric.startswith("p_"):
            return "<0.001" if number < 0.001 else f"{number:.3f}"
        if self.metric == "threshold":
            return f"{number:.4g}"
        if self.metric in ("mse", "l1"):  # too small for three decimals
            return f"{number:#.3g}"
        if self.is_difference:
            if abs(number) < NOTHING:
                return "0.000"
            # Close to 0 there are as many digits as it takes to show the sign.
            return f"{number:+.3f}" if abs(number) >= 0.0005 else f"{number:+.6f}".rstrip("0")
        return f"{number:.3f}" if field == "value" else f"{number:.2f}"

    def __str__(self) -> str:
        """The value, and its interval in brackets if there is one."""
        if not self.has_interval:
            return self.text()
        return f"{self.text()} [{self.text('ci_low')}, {self.text('ci_high')}]"


def _number(row: tuple) -> Number:
    named = dict(zip(COLUMNS, row, strict=True))
    named["value"] = float(named["value"])
    for bound in ("ci_low", "ci_high"):
        named[bound] = None if pd.isna(named[bound]) else float(named[bound])
    named["n_images"] = None if pd.isna(named["n_images"]) else int(named["n_images"])
    return Number(**named)


def in_order(names: Collection[T], order: Sequence[T]) -> list[T]:
    """Sort names by their index in ``order``; the others come last, in the order they have."""
    return [name for name in order if name in names] + [name for name in names if name not in order]


class Results:
    """The tidy table, which is asked for rows by the values in its columns.

    Attributes:
        table: The table with the columns ``COLUMNS``.
        numbers: Its rows in the same order.

    Raises:
        DataError: A column is missing, a value is missing or infinite, or two rows have the same
            name.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise DataError(
                f"metrics.csv: expected the columns {', '.join(COLUMNS)}, found no "
                f"{', '.join(missing)}; run the notebooks again"
            )
        self.table = table[list(COLUMNS)].reset_index(drop=True)
        self.numbers = [_number(row) for row in self.table.itertuples(index=False, name=None)]
        twice = self.table.duplicated(list(KEYS))
        finite = np.isfinite(self.table.value.astype(float))
        for row in np.flatnonzero(twice | ~finite)[:1]:
            fault = "twice" if twice[row] else f"with the value {self.numbers[row].value}"
            raise DataError(
                f"metrics.csv: expected each row once and with a number, found "
                f"{self.numbers[row].key} {fault}; run the notebooks again"
            )
        texts = attrgetter(*TEXTS)
        self._first = {texts(number): number for number in reversed(self.numbers)}

    def find(
        self,
        scenario: str,
        method: str,
        category: str,
        metric: str,
        /,
        *,
        against: str = "",
        against_method: str = "",
        **details: str,
    ) -> Number | None:
        """The row of that name, or None; where there are several seeds, the row of the first.

        Args:
            scenario: Scenario, or what was subtracted from in a difference.
            method: Method, likewise.
            category: Category, or ``MACRO``.
            metric: Name of the metric.
            against: Scenario that was subtracted.
            against_method: Method that was subtracted.
            details: What the metric is restricted to, such as ``rule="mad"``.
        """
        names = (scenario, against, method, against_method, category, *detailed(metric, **details))
        return self._first.get(names)

    def where(self, **columns: str | bool) -> list[Number]:
        """The rows that have these values in these columns."""
        chosen = np.ones(len(self.table), bool)
        for name, value in columns.items():
            chosen &= (self.table[name] == value).to_numpy()
        return [self.numbers[index] for index in np.flatnonzero(chosen)]

    def _names(self, column: str, **columns: str | bool) -> dict[str, None]:
        return dict.fromkeys(getattr(number, column) for number in self.where(**columns))

    @cached_property
    def scenarios(self) -> list[str]:
        """Scenarios that were evaluated, in the order of the report."""
        names = self._names("scenario", against="")
        return in_order([name for name in names if name not in BLOCKS], SCENARIO_ORDER)

    @cached_property
    def methods(self) -> list[str]:
        """Methods that were evaluated in a scenario, in the order of the report."""
        levels = {"against": "", "against_method": "", "detail": ""}
        return in_order(self._names("method", metric="image_auroc", **levels), METHOD_ORDER)

    @cached_property
    def autoencoders(self) -> list[str]:
        """Autoencoders among the methods, and those that were only reconstructed with."""
        names = dict.fromkeys([*self.methods, *self._names("method", scenario="reconstruction")])
        return in_order([name for name in names if architecture_of(name)], METHOD_ORDER)

    @cached_property
    def categories(self) -> list[str]:
        """Categories without the macro average, in the table's order."""
        return list(self._names("category", metric="image_auroc", detail="", macro=False))

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Compared methods, such as ``("patchcore", "padim")``, in the order of the report."""
        names = dict.fromkeys((number.method, number.against_method) for number in self.numbers)
        order = list(itertools.product(METHOD_ORDER, METHOD_ORDER))
        return in_order([pair for pair in names if pair[1]], order)

    def called(self, category: str) -> str:
        """A category's name for a reader, also that of the macro average."""
        return category if category != MACRO else macro_name(self.categories)

    def tested(self, scenario: str, pair: tuple[str, str], test: str) -> list[tuple[Number, str]]:
        """Corrected p values of a test of two methods, each with its category.

        Args:
            scenario: Where they are compared.
            pair: The two methods.
            test: ``delong``, ``permutation`` or ``mcnemar``.
        """
        method, other = pair
        p_values = (
            (
                self.find(scenario, method, category, f"p_{test}_holm", against_method=other),
                category,
            )
            for category in self.categories
        )
        return [(p, category) for p, category in p_values if p is not None]

    def significant(
        self, scenario: str, pair: tuple[str, str], metric: str, test: str
    ) -> dict[str, Number]:
        """The difference of two methods in each category where it is significant.

        Args:
            scenario: Where they are compared.
            pair: The two methods.
            metric: The metric whose difference is given.
            test: The test that decides, after Holm's correction; see ``tested``.
        """
        method, other = pair
        differences = {}
        for p, category in self.tested(scenario, pair, test):
            difference = self.find(scenario, method, category, metric, against_method=other)
            if p.value < ALPHA and difference is not None:
                differences[category] = difference
        return differences
