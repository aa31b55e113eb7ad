"""Is one method better than another? Paired tests on the same images, adjusted over each family."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import cell, tested
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.evaluation.cell import draw_seed
from nbhelpers.evaluation.significance import compare_methods, holm
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import to_rows
from nbhelpers.study import Study

#: Each p value to the metric that it tests: DeLong's test the ranking, sign flips AUPIMO, and
#: McNemar's test the decisions.
TESTS = {"p_delong": "image_auroc", "p_permutation": "aupimo", "p_mcnemar": "accuracy"}


def methods_part(study: Study, scenario: str) -> Part:
    """Rows of two methods: their differences, and p values with and without adjustment.

    The p values are adjusted (Holm) over one test in one scenario, so over all categories and
    pairs of methods. AUPIMO is compared where all methods have it.
    """

    def make() -> list[dict[str, Any]]:
        tables = []
        for category in study.categories:
            by_method: dict[str, Predictions] = {
                method: tested(study, scenario, method, category) for method in study.config.methods
            }
            thresholds, per_image = {}, {}
            for method in by_method:
                evaluated = cell(study, scenario, method, category).get()
                thresholds[method] = evaluated.result["threshold"]["value"]
                draws = evaluated.draws
                if "aupimo_per_image" in draws:
                    per_image[method] = draws["aupimo_per_image"]
            table = compare_methods(
                by_method,
                thresholds,
                per_image if len(per_image) == len(by_method) else None,
                seed=draw_seed(study.config.seed, category),
                level=study.config.evaluation.confidence,
            )
            tables.append(table.assign(category=category))
        table = pd.concat(tables, ignore_index=True)
        for name in TESTS:
            known = table[name].dropna() if name in table else pd.Series(dtype=float)
            table[f"{name}_holm"] = pd.Series(holm(known.to_dict()), dtype=float)
        rows = []
        for row in table.to_dict("records"):
            n_images = row["n_images"]
            metrics = {
                "image_auroc": stated(row["image_auroc"], n_images, row["ci_low"], row["ci_high"]),
                "accuracy": stated(row["accuracy"], n_images),
            }
            if pd.notna(row.get("aupimo")):
                metrics["aupimo"] = stated(row["aupimo"], row["n_aupimo"])
                metrics["rank_biserial"] = stated(row["rank_biserial"], row["n_aupimo"])
            for name in TESTS:
                if pd.notna(row.get(name)):
                    count = row["n_aupimo"] if name == "p_permutation" else n_images
                    metrics[name] = stated(row[name], count)
                    metrics[f"{name}_holm"] = stated(row[f"{name}_holm"], count)
            rows += to_rows(
                scenario,
                row["method"],
                row["category"],
                study.config.seed,
                metrics,
                against_method=row["against_method"],
            )
        return rows

    keys = [cell(study, scenario, method, category) for method, category in study.cells]
    return make_part(study, __name__, f"methods_{scenario}", make, cells=keys)


def parts(study: Study) -> list[Part]:
    """All of this module's rows; a single method has none."""
    if len(study.config.methods) < 2:
        return []
    return [methods_part(study, name) for name in study.config.scenarios]


def compare(study: Study, *scenarios: str) -> pd.DataFrame:
    """``methods_part`` of several scenarios as rows of the tidy table."""
    return pd.concat([methods_part(study, name).rows() for name in scenarios], ignore_index=True)
