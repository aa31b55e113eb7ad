"""A tidy table with every family of rows, drawn from a seed: what a whole study's metrics.csv looks like."""

import itertools

import numpy as np
import pandas as pd
import pytest

from nbhelpers.evaluation.scenarios import COLUMNS, MACRO

METHODS, CATEGORIES = ("patchcore", "padim"), ("carpet", "hazelnut", "zipper")
LEVELS = {"clean": 0.97, "no_adaptation": 0.72, "threshold_only": 0.72, "full_adaptation": 0.9, "global": 0.95,
          "global_one_threshold": 0.95}
RATES = ("image_auroc", "pixel_auroc", "aupro", "aupimo", "f1", "recall", "specificity", "balanced_accuracy",
         "trivial_f1")
DIFFERENCES = ("no_adaptation - clean", "threshold_only - no_adaptation", "full_adaptation - threshold_only",
               "full_adaptation - clean", "global - clean", "global_one_threshold - global")
FAMILIES = ("levels", "differences", "comparisons", "thresholds", "transfers", "errors", "rest")


class Rows(list):
    """Rows of the tidy table, added by family."""

    def __init__(self, methods):
        super().__init__()
        self.methods = methods
        self.rng = np.random.default_rng(7)

    def put(self, scenario, method, category, metric, value, half=None, n=100, seed=42):
        low, high = (None, None) if half is None else (value - half, min(value + half, 1.0))
        self.append((scenario, method, category, seed, metric, value, low, high, n))

    def rate(self, scenario, method, category, metric, middle, **more):
        self.put(scenario, method, category, metric, float(np.clip(self.rng.normal(middle, 0.03), 0, 1)), 0.05, **more)

    def levels(self):
        for (scenario, level), method, category in itertools.product(
                LEVELS.items(), self.methods, (*CATEGORIES, MACRO)):
            for metric in RATES:
                middle = {"trivial_f1": 0.8}.get(metric, level - 0.04 * (method == "padim"))
                self.rate(scenario, method, category, metric, middle)
            if category != MACRO:
                self.put(scenario, method, category, "threshold", self.rng.uniform(2, 40), n=30)
                self.put(scenario, method, category, "ece", 0.1)

    def differences(self):
        for name, method, category in itertools.product(DIFFERENCES, self.methods, (*CATEGORIES, MACRO)):
            after, before = name.split(" - ")
            for metric in ("image_auroc", "aupro", "f1", "specificity", "balanced_accuracy"):
                self.put(name, method, category, metric, LEVELS[after] - LEVELS[before], 0.04)
        for scenario, method, metric in itertools.product(
                ("threshold_only", "full_adaptation"), self.methods, ("image_auroc", "specificity")):
            self.put(scenario, method, MACRO, f"recovered_share[metric={metric}]", 0.5, 0.2)

    def comparisons(self):
        pairs = map(" - ".join, itertools.combinations(self.methods, 2))
        for scenario, pair, category in itertools.product(LEVELS, pairs, CATEGORIES):
            for metric, test in (("image_auroc", "delong"), ("aupimo", "permutation"), ("accuracy", "mcnemar")):
                self.put(scenario, pair, category, metric, 0.04, 0.03 if category == "carpet" else 0.06)
                p = 0.0004 if category == "carpet" else 0.2
                self.put(scenario, pair, category, f"p_{test}", p)
                self.put(scenario, pair, category, f"p_{test}_holm", 3 * p)

    def thresholds(self):
        rules = ("f1_optimal", "mad", "percentile_95", "conformal_split")
        for scenario, method, category, rule in itertools.product(
                ("clean", "no_adaptation"), self.methods, (*CATEGORIES, MACRO), rules):
            for metric in ("f1", "recall", "specificity", "balanced_accuracy"):
                self.rate(scenario, method, category, f"{metric}[rule={rule}]", LEVELS[scenario])
            if category != MACRO:
                self.put(scenario, method, category, f"threshold[rule={rule}]", self.rng.uniform(2, 40))
            self.put(scenario, method, category, f"degenerate[rule={rule}]", float(rule == "mad" and method == "padim"))
        for scenario, method, category, target in itertools.product(
                ("clean", "no_adaptation"), self.methods, CATEGORIES, ("0.05", "0.1")):
            name = f"[rule=conformal_split,target={target}]"
            shifted = 0.3 if scenario == "no_adaptation" else 0.0
            self.put(scenario, method, category, f"realised_fpr{name}", float(target) + shifted, 0.04, n=12)
            self.put(scenario, method, category, f"calibration_n{name}", 30)
            self.rate(scenario, method, category, f"recall{name}", 0.8)

        for method, category, size in itertools.product(self.methods, CATEGORIES, (0, 5, 10, 24)):
            name = f"realised_fpr[recalibrated_on={size},target=0.1]"
            self.put("threshold_only", method, category, name, 0.4 if size < 10 else 0.1, 0.1, n=12)

    def transfers(self):
        for tested, origin in itertools.product(CATEGORIES, CATEGORIES):
            for metric in ("fpr", "fnr", "specificity"):
                self.rate("global", "patchcore", tested, f"{metric}[threshold_from={origin}]", 0.4)
        for category, method, origin, tested in itertools.product(CATEGORIES, self.methods, ("clean", "shift"),
                                                                  ("clean", "shift")):
            for metric in ("fpr", "fnr", "specificity"):
                name = f"{metric}[threshold_from={origin},tested_on={tested}]"
                self.rate("transfer", method, category, name, 0.3)
        for category in CATEGORIES:
            for patches in ("defect", "normal"):
                self.rate("global", "patchcore", category, f"other_category_share[patches={patches}]", 0.2)
        for category in CATEGORIES:
            self.put("global", "patchcore", category, "bank_share", 1 / 3)

    def errors(self):
        kinds = [("defect_type", ("cut", "hole")), ("size", ("small", "medium", "large")),
                 ("border", ("near", "middle", "far")), ("contrast", ("low", "medium", "high"))]
        for scenario, method, category in itertools.product(("clean", "no_adaptation"), self.methods, CATEGORIES):
            for kind, levels in kinds:
                for level in levels:
                    self.rate(scenario, method, category, f"recall[{kind}={level}]", 0.8, n=8)
        for scenario, category in itertools.product(("clean", "no_adaptation"), CATEGORIES):
            self.rate(scenario, "all", category, "missed_by_all", 0.1, n=16)

    def rest(self):
        for category in CATEGORIES:
            for metric, count in (("train_good", 24), ("val_good", 6), ("val_defect", 5), ("test_good", 12),
                                  ("test_defect", 11), ("test_masks", 11)):
                self.put("data", "-", category, metric, count, n=count)
        for seed, method, category in itertools.product((42, 43, 44), self.methods, CATEGORIES):
            for metric in ("image_auroc", "pixel_auroc", "aupro"):
                self.rate("seeds", method, category, metric, 0.95, seed=seed)


    def reconstruction(self):
        for (method, size), category in itertools.product({"ae_cnn": 13906051, "ae_vit": 64}.items(), CATEGORIES):
            self.put("reconstruction", method, category, "parameters", size, n=24)
            for metric, head in itertools.product(("image_auroc", "pixel_auroc", "aupro"), ("pixel_l2", "ssim")):
                self.rate("reconstruction", method, category, f"{metric}[head={head}]", 0.8)
            for images, mse in (("good", 0.00214), ("defect", 0.00413)):
                self.put("reconstruction", method, category, f"ssim[images={images}]", 0.9, n=6)
                self.put("reconstruction", method, category, f"mse[images={images}]", mse, n=6)
                self.put("reconstruction", method, category, f"l1[images={images}]", 10 * mse, n=6)


def table_of(*families, methods=METHODS):
    rows = Rows(methods)
    for family in families:
        getattr(rows, family)()
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture(scope="session")
def tidy():
    """All families but that of the autoencoders."""
    return table_of(*FAMILIES)


@pytest.fixture(scope="session")
def three():
    """All families, with an autoencoder as a third method and another that is looked at alone."""
    return table_of(*FAMILIES, "reconstruction", methods=(*METHODS, "ae_cnn"))


@pytest.fixture(scope="session")
def bare():
    """Scenario cells alone, of two scenarios and one method: what the study had before it was whole."""
    table = table_of("levels")
    return table[table.scenario.isin(["clean", "no_adaptation"]) & (table.method == "patchcore")]
