"""A tidy table with every family of rows, drawn from a seed: what a whole study's metrics.csv looks
like.
"""

import itertools

import numpy as np
import pytest

from nbhelpers.config import load_config
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.report.page import Picture, build_report
from nbhelpers.report.tables import all_tables
from nbhelpers.results.numbers import Results
from nbhelpers.results.table import MACRO, as_table, detailed, to_rows

METHODS, CATEGORIES = ("patchcore", "padim"), ("carpet", "hazelnut", "zipper")
LEVELS = {
    "clean": 0.97,
    "no_adaptation": 0.72,
    "threshold_only": 0.72,
    "full_adaptation": 0.9,
    "global": 0.95,
    "global_one_threshold": 0.95,
}
RATES = (
    "image_auroc",
    "pixel_auroc",
    "aupro",
    "aupimo",
    "f1",
    "recall",
    "specificity",
    "balanced_accuracy",
    "trivial_f1",
)
DIFFERENCES = (
    ("no_adaptation", "clean"),
    ("threshold_only", "no_adaptation"),
    ("full_adaptation", "threshold_only"),
    ("full_adaptation", "clean"),
    ("global", "clean"),
    ("global_one_threshold", "global"),
)
FAMILIES = ("levels", "differences", "comparisons", "thresholds", "transfers", "errors", "rest")


class Rows(list):
    """Rows of the tidy table, added by family."""

    def __init__(self, methods):
        super().__init__()
        self.methods = methods
        self.rng = np.random.default_rng(7)

    def put(
        self,
        scenario,
        method,
        category,
        metric,
        value,
        half=None,
        /,
        n=100,
        seed=42,
        sides=(),
        **details,
    ):
        low, high = (None, None) if half is None else (value - half, min(value + half, 1.0))
        entries = {detailed(metric, **details): stated(value, n, low, high)}
        self += to_rows(scenario, method, category, seed, entries, **dict(sides))

    def rate(self, scenario, method, category, metric, middle, /, **more):
        value = float(np.clip(self.rng.normal(middle, 0.03), 0, 1))
        self.put(scenario, method, category, metric, value, 0.05, **more)

    def levels(self):
        for (scenario, level), method, category in itertools.product(
            LEVELS.items(), self.methods, (*CATEGORIES, MACRO)
        ):
            for metric in RATES:
                middle = {"trivial_f1": 0.8}.get(metric, level - 0.04 * (method == "padim"))
                self.rate(scenario, method, category, metric, middle)
            if category != MACRO:
                self.put(scenario, method, category, "threshold", self.rng.uniform(2, 40), n=30)
                self.put(scenario, method, category, "ece", 0.1)

    def differences(self):
        for (after, before), method, category in itertools.product(
            DIFFERENCES, self.methods, (*CATEGORIES, MACRO)
        ):
            value, sides = LEVELS[after] - LEVELS[before], {"against": before}
            for metric in ("image_auroc", "aupro", "f1", "specificity", "balanced_accuracy"):
                self.put(after, method, category, metric, value, 0.04, sides=sides)
        for scenario, method, metric in itertools.product(
            ("threshold_only", "full_adaptation"), self.methods, ("image_auroc", "specificity")
        ):
            self.put(scenario, method, MACRO, "recovered_share", 0.5, 0.2, metric=metric)

    def comparisons(self):
        pairs = itertools.combinations(self.methods, 2)
        for scenario, (method, other), category in itertools.product(LEVELS, pairs, CATEGORIES):
            names, sides = (scenario, method, category), {"against_method": other}
            for metric, test in (
                ("image_auroc", "delong"),
                ("aupimo", "permutation"),
                ("accuracy", "mcnemar"),
            ):
                half = 0.03 if category == "carpet" else 0.06
                self.put(*names, metric, 0.04, half, sides=sides)
                p = 0.0004 if category == "carpet" else 0.2
                self.put(*names, f"p_{test}", p, sides=sides)
                self.put(*names, f"p_{test}_holm", 3 * p, sides=sides)

    def thresholds(self):
        rules = ("f1_optimal", "mad", "percentile_95", "conformal_split")
        for scenario, method, category, rule in itertools.product(
            ("clean", "no_adaptation"), self.methods, (*CATEGORIES, MACRO), rules
        ):
            for metric in ("f1", "recall", "specificity", "balanced_accuracy"):
                self.rate(scenario, method, category, metric, LEVELS[scenario], rule=rule)
            if category != MACRO:
                value = self.rng.uniform(2, 40)
                self.put(scenario, method, category, "threshold", value, rule=rule)
            useless = float(rule == "mad" and method == "padim")
            self.put(scenario, method, category, "degenerate", useless, rule=rule)
        for scenario, method, category, target in itertools.product(
            ("clean", "no_adaptation"), self.methods, CATEGORIES, ("0.05", "0.1")
        ):
            names = (scenario, method, category)
            promise = {"rule": "conformal_split", "target": target}
            realised = float(target) + (0.3 if scenario == "no_adaptation" else 0.0)
            self.put(*names, "realised_fpr", realised, 0.04, n=12, **promise)
            self.put(*names, "calibration_n", 30, **promise)
            self.rate(*names, "recall", 0.8, **promise)
        for method, category, size in itertools.product(self.methods, CATEGORIES, (0, 5, 10, 24)):
            names, details = ("threshold_only", method, category), {"recalibrated_on": size}
            value = 0.4 if size < 10 else 0.1
            self.put(*names, "realised_fpr", value, 0.1, n=12, **details, target="0.1")

    def transfers(self):
        for tested, origin in itertools.product(CATEGORIES, CATEGORIES):
            for metric in ("fpr", "fnr", "specificity"):
                self.rate("global", "patchcore", tested, metric, 0.4, threshold_from=origin)
        for category, method, origin, tested in itertools.product(
            CATEGORIES, self.methods, ("clean", "shift"), ("clean", "shift")
        ):
            for metric in ("fpr", "fnr", "specificity"):
                where = {"threshold_from": origin, "tested_on": tested}
                self.rate("transfer", method, category, metric, 0.3, **where)
        for category in CATEGORIES:
            names = ("global", "patchcore", category)
            for patches in ("defect", "normal"):
                self.rate(*names, "other_category_share", 0.2, patches=patches)
        for category in CATEGORIES:
            self.put("global", "patchcore", category, "bank_share", 1 / 3)

    def errors(self):
        kinds = [
            ("defect_type", ("cut", "hole")),
            ("size", ("small", "medium", "large")),
            ("border", ("near", "middle", "far")),
            ("contrast", ("low", "medium", "high")),
        ]
        for scenario, method, category in itertools.product(
            ("clean", "no_adaptation"), self.methods, CATEGORIES
        ):
            for kind, levels in kinds:
                for level in levels:
                    self.rate(scenario, method, category, "recall", 0.8, n=8, **{kind: level})
            for name in ("cut", "hole"):
                cell = (scenario, method, category)
                self.put(*cell, "cliffs_delta", 0.9, 0.1, n=20, defect_type=name)
                self.put(*cell, "hedges_g", 2.5, n=20, defect_type=name)
                for metric, value in (("overlap", 0.1), ("ks", 0.9)):
                    self.put(*cell, metric, value, n=20, defect_type=name)
                for metric, value in (("p_ks", 0.002), ("p_ks_holm", 0.02)):
                    self.put(*cell, metric, value, n=20, defect_type=name)
        for scenario, category in itertools.product(("clean", "no_adaptation"), CATEGORIES):
            self.rate(scenario, "all", category, "missed_by_all", 0.1, n=16)

    def rest(self):
        for category in CATEGORIES:
            for metric, count in (
                ("train_good", 24),
                ("val_good", 6),
                ("val_defect", 5),
                ("test_good", 12),
                ("test_defect", 11),
                ("test_masks", 11),
            ):
                self.put("data", "-", category, metric, count, n=count)
        for seed, method, category in itertools.product((42, 43, 44), self.methods, CATEGORIES):
            for metric in ("image_auroc", "pixel_auroc", "aupro"):
                self.rate("seeds", method, category, metric, 0.95, seed=seed)

    def reconstruction(self):
        for (method, size), category in itertools.product(
            {"ae_cnn": 13906051, "ae_vit": 64}.items(), CATEGORIES
        ):
            self.put("reconstruction", method, category, "parameters", size, n=24)
            for metric, head in itertools.product(
                ("image_auroc", "pixel_auroc", "aupro"), ("pixel_l2", "ssim")
            ):
                self.rate("reconstruction", method, category, metric, 0.8, head=head)
            for images, mse in (("good", 0.00214), ("defect", 0.00413)):
                for metric, value in (("ssim", 0.9), ("mse", mse), ("l1", 10 * mse)):
                    names = ("reconstruction", method, category, metric)
                    self.put(*names, value, n=6, images=images)


def table_of(*families, methods=METHODS):
    rows = Rows(methods)
    for family in families:
        getattr(rows, family)()
    return as_table(rows)


@pytest.fixture(scope="session")
def tidy():
    """All families but that of the autoencoders."""
    return table_of(*FAMILIES)


@pytest.fixture(scope="session")
def three():
    """All families, with an autoencoder as a third method and another that is looked at alone."""
    return table_of(*FAMILIES, "reconstruction", methods=(*METHODS, "ae_cnn"))


@pytest.fixture(scope="session")
def results(tidy):
    return Results(tidy)


@pytest.fixture(scope="session")
def bare():
    """Scenario cells alone, of two scenarios and one method: what the study had before it was
    whole.
    """
    table = table_of("levels")
    return table[table.scenario.isin(["clean", "no_adaptation"]) & (table.method == "patchcore")]


PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    + (1500).to_bytes(4, "big")
    + (750).to_bytes(4, "big")
    + b"rest"
)
PICTURES = {
    name: Picture(PNG, f"Caption of {name}.", f"What {name} shows.")
    for name in (
        "heatmap_image_auroc",
        "scatter",
        "scenario_lines",
        "promised",
        "best_and_worst_no_adaptation_carpet",
    )
}


def view(scenario):
    """A stored JSON view, as a scenario's evaluation writes it."""
    provenance = {
        "git": "0123456789ab",
        "created": "2026-01-01T10:00:00+0000",
        "platform": "Linux x86_64",
        "device": "cpu",
        "python": "3.11.7",
        "seconds": 12.3,
        "peak_memory_mb": 456.7,
        "packages": {"numpy": "2.4.6"},
        "seed": 42,
        "config": load_config("tiny").model_dump(mode="json", exclude={"workspace"}),
        "config_hash": "fedcba9876543210",
    }
    protocol = {
        "model_fitted_on": "clean",
        "threshold_from": "val clean",
        "tested_on": "test clean",
    }
    cell = {"threshold": {"value": 1.0}, "pixel_skipped": None}
    return {
        "scenario": scenario,
        "protocol": protocol,
        "provenance": provenance,
        "methods": {"patchcore": {"carpet": cell}},
        "macro": {"patchcore": {"metrics": {}}},
    }


def views_of(table):
    return {name: view(name) for name in Results(table).scenarios}


@pytest.fixture(scope="session")
def views():
    return views_of


@pytest.fixture(scope="session")
def pictures():
    return PICTURES


@pytest.fixture(scope="session")
def report():
    """The page of a tidy table."""

    def make(table, pictures=PICTURES, date="2026-01-31", stored=None):
        results = Results(table)
        views = stored or views_of(table)
        return build_report(results, all_tables(results), views, pictures, date)

    return make
