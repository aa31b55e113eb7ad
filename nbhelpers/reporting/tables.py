"""Results as files and as readable tables; every one is a view of the evaluations, nothing is typed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nbhelpers.evaluation.scenarios import GLOBAL, MACRO, Scenario
from nbhelpers.files import write_json, write_text
from nbhelpers.models.detector import Predictions

#: What a results table shows unless asked for more.
HEADLINES = ("image_auroc", "pixel_auroc", "aupro", "f1", "trivial_f1", "specificity")
Cells = Mapping[str, Mapping[str, dict[str, Any]]]  # method -> category, or macro -> evaluation


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table: counts whole, other numbers with six digits, more than any carries; the same bytes everywhere."""
    write_text(path, table.to_csv(index=False, float_format=_digits, lineterminator="\n"))


def _digits(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def write_scenario(folder: Path, scenario: Scenario, cells: Cells, provenance: dict[str, Any]) -> None:
    """Write a scenario's JSON view to ``folder``, and each method's thresholds beside it."""
    methods = {}
    for method, categories in cells.items():
        methods[method] = categories
        thresholds = {name: cell["threshold"] for name, cell in categories.items() if name != MACRO}
        write_json(folder / "thresholds" / f"{method}_{scenario.name}_thresholds.json", thresholds)
    pooled = scenario.fitted_on == GLOBAL
    protocol = {
        "model_fitted_on": "clean, all categories pooled" if pooled else scenario.fitted_on,
        "threshold_from": f"val {scenario.threshold_domain}" + scenario.one_threshold * ", one for all categories",
        "tested_on": f"test {scenario.test_domain}",
    }
    view = {"scenario": scenario.name, "protocol": protocol, "methods": methods, "provenance": provenance}
    write_json(folder / scenario.results_file, view)


def per_image(test: Predictions, threshold: float) -> pd.DataFrame:
    """One row a test image: id, defect type, label, score, decision, margin (score minus threshold)."""
    scores = test.image_scores.astype("float64")
    return pd.DataFrame({
        "id": test.ids, "defect_type": test.defect_types, "label": test.labels, "score": scores,
        "decision": (scores >= threshold).astype(int), "margin": scores - threshold,
        "pixel_valid": test.pixel_valid,
    })


def headline_table(table: pd.DataFrame, metrics: Iterable[str] = HEADLINES) -> pd.DataFrame:
    """The tidy table as scenario x method x category rows and metric columns, in its order; NaN where skipped."""
    chosen = table[table.metric.isin(list(metrics))]
    keys = ["scenario", "method", "category", "seed"]
    wide = chosen.pivot(index=keys, columns="metric", values="value")
    wide = wide.reindex(index=list(chosen[keys].drop_duplicates().itertuples(index=False, name=None)))
    return wide.reindex(columns=list(metrics))


def with_intervals(table: pd.DataFrame, metrics: Iterable[str], digits: int = 2) -> pd.DataFrame:
    """As ``headline_table``, each cell as text: value [low, high]."""
    chosen = table[table.metric.isin(list(metrics))]

    def cell(row: Any) -> str:
        text = f"{row.value:.{digits}f}"
        return text if pd.isna(row.ci_low) else f"{text} [{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]"

    texts = chosen.assign(text=[cell(row) for row in chosen.itertuples()])
    wide = texts.pivot(index=["method", "category"], columns="metric", values="text")
    order = chosen[["method", "category"]].drop_duplicates().itertuples(index=False, name=None)
    return wide.reindex(index=list(order), columns=[name for name in metrics if name in wide.columns])


def qualified(table: pd.DataFrame, qualifier: str, metrics: Iterable[str], interval: bool = False) -> pd.DataFrame:
    """Rows like ``f1[rule=mad]`` as a wide table: scenario, method, category, the qualifier, a column a metric.

    Args:
        table: Rows of the tidy table.
        qualifier: The one that is wanted, e.g. ``rule``.
        metrics: Names without their qualifiers.
        interval: Each cell as text, value [low, high].
    """
    parts = table.metric.str.extract(r"^([^\[]+)\[(?:.*,)?" + qualifier + r"=([^,\]]+)[^\]]*\]$")
    chosen = table.assign(name=parts[0], part=parts[1])
    chosen = chosen[chosen.name.isin(list(metrics))]
    if interval:
        chosen = chosen.assign(value=[f"{r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]" for r in chosen.itertuples()])
    keys = ["scenario", "method", "category", "part"]
    wide = chosen.pivot(index=keys, columns="name", values="value")
    order = chosen[keys].drop_duplicates().itertuples(index=False, name=None)
    wide = wide.reindex(index=list(order), columns=[name for name in metrics if name in wide.columns])
    wide = wide.rename_axis(columns=None).reset_index().rename(columns={"part": qualifier})
    return wide if wide.scenario.nunique() > 1 or interval else wide.drop(columns="scenario")


def area_table(areas: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of defect area (share of the image, percent) by category and defect type."""
    grouped = areas.groupby(["category", "defect"])["area_percent"]
    table = grouped.quantile([0.0, 0.25, 0.5, 0.75, 1.0]).unstack()
    table.columns = ["min", "q25", "median", "q75", "max"]
    return table.assign(images=grouped.size()).reset_index()
