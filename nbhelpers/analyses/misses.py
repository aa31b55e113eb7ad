"""Error analysis: decisions beside what is known about each defect, from stored predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import cell, evaluate_cell, per_image, tested
from nbhelpers.config import digest
from nbhelpers.data.exploration import DEFECT_COLUMNS, describe_defects
from nbhelpers.evaluation import misses as error_tables
from nbhelpers.evaluation.bootstrap import share_interval, stated
from nbhelpers.evaluation.cell import draw_seed
from nbhelpers.evaluation.misses import PROPERTIES
from nbhelpers.evaluation.significance import holm
from nbhelpers.files import write_csv
from nbhelpers.results.table import detailed, to_rows
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import Artefact, Study

#: Method in the rows that are about all methods together.
ALL_METHODS = "all"
#: The columns about a defect that stand beside each decision.
FACTS = ("area_percent", "border_distance", "contrast_delta_e", *PROPERTIES)
TEXT = ("category", "defect", "image")
#: Metric of the tidy table to the column of ``separations`` it is read from.
SEPARATION_METRICS = {
    "cliffs_delta": "cliffs_delta",
    "hedges_g": "hedges_g",
    "overlap": "overlap",
    "ks": "ks",
    "p_ks": "ks_pvalue",
    "p_ks_holm": "ks_pvalue_holm",
}


def defect_facts(study: Study, category: str) -> pd.DataFrame:
    """Describe each clean defect image of a category (val and test) that has a mask.

    The defects are measured once and stored in
    ``outputs/<profile>/results/errors/defects_<category>.csv``.

    Returns:
        One row per image, none without masks. Columns: those of ``describe_defects``, then
        ``size``, ``border`` and ``contrast`` (see ``bin_defects``).
    """

    def make(path: Path) -> None:
        write_csv(path, describe_defects(study.samples(category)))

    path = _folder(study) / f"defects_{category}.csv"
    recipe = study.recipe(
        "defects", "data.exploration", category=category, contents=digest(study.contents(category))
    )
    return error_tables.bin_defects(Artefact(path, recipe, make, _read_facts).get())


def _read_facts(path: Path) -> pd.DataFrame:
    numbers = [name for name in DEFECT_COLUMNS if name not in TEXT]
    # "NA" or "none" may be a defect's name; an empty field is missing only where numbers stand.
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT, str),
        keep_default_na=False,
        na_values=dict.fromkeys(numbers, [""]),
    )


def _folder(study: Study) -> Path:
    return study.config.output_dir / "results" / "errors"


def decisions(study: Study, scenario: str) -> pd.DataFrame:
    """The decision of each method about every test image, at the deployed threshold.

    Returns:
        One row per method and image. Columns: method, category, id, source_id (of the clean image
        behind it), defect_type, label, score, decision, margin (score minus threshold),
        pixel_valid, threshold, good_above (the share of the category's good test images that
        score at least as high, so that 0 stands out from all of them).
    """
    tables = []
    for method, category in study.cells:
        threshold = evaluate_cell(study, scenario, method, category)["threshold"]["value"]
        test = tested(study, scenario, method, category)
        table = per_image(test, threshold)
        good = np.sort(table.score[table.label == 0].to_numpy())
        table["threshold"] = threshold
        below = np.searchsorted(good, table.score.to_numpy(), side="left")
        table["good_above"] = 1 - below / len(good)
        table.insert(0, "method", method)
        table.insert(1, "category", category)
        table.insert(3, "source_id", study.source_ids(category, test.ids))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _with_facts(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with ``FACTS`` about the clean image behind each row (its ``source_id``)."""
    facts = pd.concat(
        [defect_facts(study, category) for category in study.categories], ignore_index=True
    )
    facts = facts.set_index("image")[list(FACTS)]
    return table.join(facts, on="source_id")


def defects(study: Study, scenario: str) -> pd.DataFrame:
    """The defect images of ``decisions`` with the columns ``detected`` (bool) and ``FACTS``.

    The facts are NaN where there is no mask. A twin has the facts and bins of its clean source. A
    defect that left the frame counts, as it does in recall.
    """
    table = decisions(study, scenario)
    table = table[table.label == 1].reset_index(drop=True)
    return _with_facts(study, table.assign(detected=table.decision == 1))


def errors(study: Study, scenario: str) -> pd.DataFrame:
    """All false positives and false negatives of a scenario, the worst of each cell first.

    They are also written to ``outputs/<profile>/results/errors/<scenario>.csv``.

    Returns:
        One row per error. Columns: method, category, id, defect_type, kind, score, margin,
        source_id, ``FACTS``.
    """
    tables = []
    for method, category in study.cells:
        threshold = evaluate_cell(study, scenario, method, category)["threshold"]["value"]
        table = error_tables.error_table(tested(study, scenario, method, category), threshold)
        table.insert(0, "method", method)
        table.insert(1, "category", category)
        tables.append(table.assign(source_id=study.source_ids(category, table.id)))
    table = _with_facts(study, pd.concat(tables, ignore_index=True))
    write_csv(_folder(study) / f"{scenario}.csv", table)
    return table


def recall_rows(study: Study, scenario: str) -> list[dict[str, Any]]:
    """Recall of each defect type and bin, and the share of defects that all methods miss.

    Returns:
        Rows of the tidy table. Metrics: ``recall`` of each ``defect_type``, ``size``, ``border``
        and ``contrast`` with its Clopper-Pearson interval and its number of defect images;
        ``missed_by_all`` for the method ``all``. A category without masks has no rows of size,
        border and contrast.
    """
    table = defects(study, scenario)
    level, seed = study.config.evaluation.confidence, study.config.seed
    rows = []
    for (method, category), images in table.groupby(["method", "category"], sort=False):
        metrics = {}
        for name in ("defect_type", *PROPERTIES):
            recalls = error_tables.recall_by(images.detected, images[name], level)
            for row in recalls.to_dict("records"):
                metrics[detailed("recall", **{name: row["group"]})] = stated(
                    row["recall"], row["n"], row["ci_low"], row["ci_high"]
                )
        rows += to_rows(scenario, method, category, seed, metrics)
    for category, images in table.groupby("category", sort=False):
        missed = error_tables.missed_by_all(_by_method(images))
        share, low, high = share_interval(int(missed.sum()), len(missed), level)
        metrics = {detailed("missed_by_all"): stated(share, len(missed), low, high)}
        rows += to_rows(scenario, ALL_METHODS, category, seed, metrics)
    return rows


def _by_method(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Whether each method detects each defect image of one category, ``(N,)`` bool per method.

    The images have the same order for all methods, because ``decisions`` has.
    """
    return {
        method: images.detected.to_numpy() for method, images in table.groupby("method", sort=False)
    }


def hard_cases(study: Study, scenario: str) -> pd.DataFrame:
    """Every defect image, the hardest first: which methods miss it, and how far it stands out.

    Returns:
        One row per defect image. Columns: category, id, source_id, defect_type, ``FACTS``,
        missed_by (see ``evaluation.misses.missed_by``), missed_by_all (bool), hardness, and the
        margin of each method (``margin_<method>``). ``hardness`` is the smallest ``good_above`` of
        all methods: even the best of them finds this share of the good images at least as
        anomalous. The rows are sorted by missed_by_all, then by hardness.
    """
    table = defects(study, scenario)
    tables = []
    for _, images in table.groupby("category", sort=False):
        detected = _by_method(images)
        margins = images.pivot(index="id", columns="method", values="margin").add_prefix("margin_")
        first = images[images.method == images.method.iloc[0]]
        cases = first[["category", "id", "source_id", "defect_type", *FACTS]].assign(
            missed_by=error_tables.missed_by(detected),
            missed_by_all=error_tables.missed_by_all(detected),
            hardness=images.groupby("id", sort=False).good_above.min().to_numpy(),
        )
        tables.append(cases.join(margins[[f"margin_{method}" for method in detected]], on="id"))
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values(
        ["missed_by_all", "hardness"], ascending=False, kind="stable"
    ).reset_index(drop=True)


def margin_tests(study: Study, scenario: str) -> pd.DataFrame:
    """``evaluation.misses.margin_tests`` of each method and category.

    ``p_holm`` is adjusted over all of these questions.
    """
    tables = []
    for (method, category), images in defects(study, scenario).groupby(
        ["method", "category"], sort=False
    ):
        table = error_tables.margin_tests(images)
        table.insert(0, "method", method)
        table.insert(1, "category", category)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(p_holm=pd.Series(holm(table.p.dropna().to_dict()), dtype=float))


def separations(study: Study, scenario: str) -> pd.DataFrame:
    """How far each defect type's scores stand out, for each method and category of a scenario.

    Returns:
        The columns ``method`` and ``category``, those of ``evaluation.misses.separation``, and
        ``ks_pvalue_holm``: the p values adjusted over all rows (Holm).
    """
    settings = study.config.evaluation
    tables = []
    for method, category in study.cells:
        test = tested(study, scenario, method, category)
        table = error_tables.separation(
            test.labels,
            test.image_scores,
            test.defect_types,
            seed=draw_seed(study.config.seed, category),
            draws=settings.bootstrap_draws,
            level=settings.confidence,
        )
        table.insert(0, "method", method)
        table.insert(1, "category", category)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(ks_pvalue_holm=pd.Series(holm(table.ks_pvalue.to_dict()), dtype=float))


def separation_rows(study: Study, scenario: str) -> list[dict[str, Any]]:
    """``separations`` as rows of the tidy table.

    Each row has the detail ``defect_type``. Metrics: ``cliffs_delta`` and ``hedges_g`` with their
    intervals, ``overlap``, ``ks``, ``p_ks`` and ``p_ks_holm``. ``n_images`` counts the images
    that are compared: the good ones and those of the type. What is NaN has no row.
    """
    rows = []
    for (method, category), table in separations(study, scenario).groupby(
        ["method", "category"], sort=False
    ):
        labels = tested(study, scenario, method, category).labels
        n_good = int((labels == 0).sum())
        metrics = {}
        for record in table.to_dict("records"):
            for name, column in SEPARATION_METRICS.items():
                if pd.isna(record[column]):
                    continue
                low, high = (record.get(f"{column}_{end}") for end in ("low", "high"))
                metric = detailed(name, defect_type=record["defect_type"])
                metrics[metric] = stated(
                    record[column],
                    n_good + record["n"],
                    None if pd.isna(low) else low,
                    None if pd.isna(high) else high,
                )
        rows += to_rows(scenario, method, category, study.config.seed, metrics)
    return rows


def errors_part(study: Study, scenario: str) -> Part:
    """``recall_rows`` of a scenario as a part of the tidy table."""
    return make_part(
        study,
        __name__,
        f"errors_{scenario}",
        lambda: recall_rows(study, scenario),
        cells=[cell(study, scenario, method, name) for method, name in study.cells],
        contents=[digest(study.contents(category)) for category in study.categories],
        confidence=study.config.evaluation.confidence,
    )


def separation_part(study: Study, scenario: str) -> Part:
    """``separation_rows`` of a scenario as a part of the tidy table."""
    tests = SCENARIOS[scenario].tests
    settings = study.config.evaluation
    return make_part(
        study,
        __name__,
        f"separation_{scenario}",
        lambda: separation_rows(study, scenario),
        tested_on=[study.predicted(method, name, **tests) for method, name in study.cells],
        draws=settings.bootstrap_draws,
        confidence=settings.confidence,
        seed=study.config.seed,
    )


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    return [
        part(study, name)
        for name in study.config.scenarios
        for part in (errors_part, separation_part)
    ]
