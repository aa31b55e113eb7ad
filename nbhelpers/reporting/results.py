"""Look numbers up in the tidy table and write them as text: what every report table, figure and sentence reads.

A metric's name may carry qualifiers in brackets: ``recall[rule=mad]`` is the recall at the threshold that the
rule ``mad`` gave, ``fpr[threshold_from=clean,tested_on=shift]`` has two of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nbhelpers.errors import DataError
from nbhelpers.evaluation.scenarios import COLUMNS, COMPARISONS, MACRO, SCENARIOS, difference_name
from nbhelpers.models.factory import architecture_of

#: Scenarios in the order in which they are told; one that is not here comes after them.
SCENARIO_ORDER = tuple(SCENARIOS)
METHOD_ORDER = ("patchcore", "padim", "ae_cnn", "ae_resnet", "ae_vit", "ae_unet_lite", "ae_unet", "ae_reversed",
                "ae_diffusion")
#: Blocks of the tidy table that are no scenario of the protocol.
BLOCKS = ("data", "seeds", "transfer", "reconstruction")
#: What is said of two scenarios in the rows called "after - before".
DIFFERENCES = {difference_name(*pair): words for pair, words in COMPARISONS.items()}
#: Below this, a Holm-corrected p value is called a difference.
ALPHA = 0.05
#: A difference below this is the noise of adding in another order.
NOTHING = 1e-6
COUNTS = ("train_good", "val_good", "val_defect", "test_good", "test_defect", "test_masks", "calibration_n",
          "parameters")
LABELS = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "f1": "F1", "trivial_f1": "trivial F1", "f1_max": "best F1",
    "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1": "pixel F1", "aupro": "AUPRO 0.3",
    "aupro_005": "AUPRO 0.05", "aupimo": "AUPIMO", "ece": "ECE", "fpr": "FPR", "fnr": "FNR",
    "p_delong": "p (DeLong)", "p_delong_holm": "Holm p (DeLong)", "p_permutation": "p (permutation)",
    "p_permutation_holm": "Holm p (permutation)", "p_mcnemar": "p (McNemar)", "p_mcnemar_holm": "Holm p (McNemar)",
    "realised_fpr": "realised FPR", "target": "promised FPR", "calibration_n": "calibration images",
    "n_images": "images", "patchcore": "PatchCore", "padim": "PaDiM", "ae_cnn": "CNN AE", "ae_resnet": "ResNet AE",
    "ae_vit": "ViT AE", "ae_unet_lite": "U-Net lite AE", "ae_unet": "U-Net AE", "ae_reversed": "Reversed AE",
    "ae_diffusion": "Diffusion AE", "pixel_l1": "pixel L1", "pixel_l2": "pixel L2", "ssim": "SSIM", "mse": "MSE",
    "l1": "L1", "images": "reconstructed",
}


def label(name: str) -> str:
    """A name of the tidy table as a reader would write it: ``image_auroc`` is image AUROC."""
    if " - " in name:
        return " - ".join(label(part) for part in name.split(" - "))
    return LABELS.get(name, name.replace("_", " "))


def read_metrics(path: Path) -> pd.DataFrame:
    """The tidy table as it is stored; a category called 007 or None keeps its name."""
    names, numbers = ("scenario", "method", "category", "metric"), ("value", "ci_low", "ci_high", "n_images")
    return pd.read_csv(path, dtype=dict.fromkeys(names, str), keep_default_na=False,
                       na_values=dict.fromkeys(numbers, [""]))


def split_metric(metric: str) -> tuple[str, dict[str, str]]:
    """``"fpr[threshold_from=a,tested_on=b]"`` as its name and its qualifiers."""
    name, bracket, inner = metric.partition("[")
    if not bracket:
        return name, {}
    return name, dict(pair.split("=", 1) for pair in inner.removesuffix("]").split(","))


@dataclass(frozen=True)
class Number:
    """One row of the tidy table; what is not stored is None."""

    scenario: str
    method: str
    category: str
    seed: int
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    n_images: int | None

    @property
    def key(self) -> str:
        """The row's name: ``scenario|method|category|seed|metric``."""
        return f"{self.scenario}|{self.method}|{self.category}|{self.seed}|{self.metric}"

    @property
    def is_difference(self) -> bool:
        return " - " in self.scenario or " - " in self.method

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval that is more than the value itself."""
        if None in (self.ci_low, self.ci_high) or (self.is_difference and self.is_nothing):
            return False
        return not self.ci_low == self.ci_high == self.value

    @property
    def is_nothing(self) -> bool:
        """Whether the value and both ends of its interval are 0: nothing moved on any image."""
        return all(end is not None and abs(end) < NOTHING for end in (self.value, self.ci_low, self.ci_high))

    @property
    def sign(self) -> int | None:
        """1 or -1 where the interval lies on one side of 0, 0 where it does not, None without an interval."""
        if self.ci_low is None or self.ci_high is None:
            return None
        return 1 if self.ci_low > NOTHING else -1 if self.ci_high < -NOTHING else 0

    def text(self, field: str = "value") -> str:
        """``value``, ``ci_low``, ``ci_high``, ``n_images`` or ``seed`` as it is printed; a qualifier by its name.

        Raises:
            DataError: the row has no such field.
        """
        name, qualifiers = split_metric(self.metric)
        if field in qualifiers:
            return qualifiers[field]
        number = getattr(self, field, None)
        if number is None:
            raise DataError(f"{self.key}: expected a number in '{field}', found none; run the notebooks again")
        if field in ("n_images", "seed") or name in COUNTS:
            return f"{number:.0f}"
        if name.startswith("p_"):
            return "<0.001" if number < 0.001 else f"{number:.3f}"
        if name == "threshold":
            return f"{number:.4g}"
        if name in ("mse", "l1"):  # good ones are so small that three decimals would leave one digit
            return f"{number:#.3g}"
        if self.is_difference:
            if abs(number) < NOTHING:
                return "0.000"
            # an end so close to 0 has the digits that say on which side it lies
            return f"{number:+.3f}" if abs(number) >= 0.0005 else f"{number:+.6f}".rstrip("0")
        return f"{number:.3f}" if field == "value" else f"{number:.2f}"

    def __str__(self) -> str:
        """The value, and its interval in brackets if there is one."""
        if not self.has_interval:
            return self.text()
        return f"{self.text()} [{self.text('ci_low')}, {self.text('ci_high')}]"


def _number(row: tuple) -> Number:
    scenario, method, category, seed, metric, value, low, high, n_images = row
    low, high = (None if pd.isna(bound) else float(bound) for bound in (low, high))
    count = None if pd.isna(n_images) else int(n_images)
    return Number(scenario, method, category, int(seed), metric, float(value), low, high, count)


def in_order(names: Collection[str], order: Sequence[str]) -> list[str]:
    """Names by their place in ``order``; those that are not in it come last, as they are."""
    return [name for name in order if name in names] + [name for name in names if name not in order]


class Results:
    """The tidy table, asked by name.

    Raises:
        DataError: a column is missing, a value is missing or infinite, or two rows have one name.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise DataError(f"metrics.csv: expected the columns {', '.join(COLUMNS)}, found no {', '.join(missing)}")
        self.table = table[list(COLUMNS)].reset_index(drop=True)
        self.numbers = [_number(row) for row in self.table.itertuples(index=False, name=None)]
        self._rows: dict[tuple[str, str, str, str], Number] = {}
        keys = set()
        for number in self.numbers:
            if not math.isfinite(number.value) or number.key in keys:
                fault = "twice" if number.key in keys else f"with the value {number.value}"
                raise DataError(f"metrics.csv: found the row {number.key} {fault}; run the notebooks again")
            keys.add(number.key)
            self._rows.setdefault((number.scenario, number.method, number.category, number.metric), number)

    def find(self, scenario: str, method: str, category: str, metric: str) -> Number | None:
        """The row of that name (of the first seed, where there are several), or None."""
        return self._rows.get((scenario, method, category, metric))

    def having(self, name: str, **qualifiers: str) -> Iterator[Number]:
        """Rows whose metric has this name without its qualifiers, and at least the given qualifiers."""
        for number in self.numbers:
            own, found = split_metric(number.metric)
            if own == name and qualifiers.items() <= found.items():
                yield number

    @property
    def scenarios(self) -> list[str]:
        """Scenarios that were evaluated, in the order in which they are told."""
        names = dict.fromkeys(n.scenario for n in self.numbers if " - " not in n.scenario and n.scenario not in BLOCKS)
        return in_order(names, SCENARIO_ORDER)

    @property
    def methods(self) -> list[str]:
        """Methods that were evaluated in a scenario, in the order in which they are told."""
        names = dict.fromkeys(n.method for n in self.numbers if n.metric == "image_auroc" and not n.is_difference)
        return in_order(names, METHOD_ORDER)

    @property
    def autoencoders(self) -> list[str]:
        """Autoencoders among the methods, and those that were looked at one by one alone."""
        names = dict.fromkeys([*self.methods, *(n.method for n in self.numbers if n.scenario == "reconstruction")])
        return in_order([name for name in names if architecture_of(name)], METHOD_ORDER)

    @property
    def categories(self) -> list[str]:
        """Categories without the macro average, in the table's order."""
        names = dict.fromkeys(n.category for n in self.numbers if n.metric == "image_auroc")
        return [name for name in names if name != MACRO]

    @property
    def pairs(self) -> list[str]:
        """Compared methods, ``"patchcore - padim"``, in the order in which methods are told."""
        names = dict.fromkeys(n.method for n in self.numbers if " - " in n.method)
        return in_order(names, [f"{first} - {second}" for first in METHOD_ORDER for second in METHOD_ORDER])

    def tested(self, scenario: str, pair: str, test: str) -> list[tuple[Number, str]]:
        """Corrected p values of a test of two methods (``delong``, ``permutation``, ``mcnemar``), by category."""
        found = ((self.find(scenario, pair, c, f"p_{test}_holm"), c) for c in (*self.categories, MACRO))
        return [(p, category) for p, category in found if p is not None]

    def told_apart(self, scenario: str, pair: str, metric: str, test: str) -> dict[str, Number]:
        """Categories in which the two methods differ after Holm's correction, each with the difference."""
        found = {c: self.find(scenario, pair, c, metric) for p, c in self.tested(scenario, pair, test)
                 if p.value < ALPHA}
        return {category: difference for category, difference in found.items() if difference is not None}
