"""Error analysis of a study: its decisions beside what is known of each defect; reads stored
predictions only.
"""

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

#: Name of the row that is about all methods together.
ALL_METHODS = "all"
#: What is told of a defect beside a decision about it.
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
    """What each masked clean defect image of a category (val and test) is like, with its bins;
    empty without masks.

    Measured once: ``outputs/<profile>/results/errors/defects_<category>.csv``. Columns: those of
    ``describe_defects``, then ``size``, ``border`` and ``contrast`` (see ``bin_defects``).
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
    # "NA" or "none" may be a defect's name; only in a number an empty cell means that there is none
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT, str),
        keep_default_na=False,
        na_values=dict.fromkeys(numbers, [""]),
    )


def _folder(study: Study) -> Path:
    return study.config.output_dir / "results" / "errors"


def decisions(study: Study, scenario: str) -> pd.DataFrame:
    """Every test image of a scenario as each method judges it at its deployed threshold.

    Columns: method, category, id, source_id (of the clean image behind it), defect_type, label,
    score, decision, margin (score minus threshold), pixel_valid, threshold, good_above (share of
    the category's good test images that score at least as high: 0 stands out from all of them).
    """
    parts = []
    for method, category in study.cells:
        threshold = evaluate_cell(study, scenario, method, category)["threshold"]["value"]
        test = tested(study, scenario, method, category)
        table = per_image(test, threshold)
        good = np.sort(table.score[table.label == 0].to_numpy())
        table["threshold"] = threshold
        table["good_above"] = 1 - np.searchsorted(good, table.score.to_numpy(), side="left") / len(
            good
        )
        table.insert(0, "method", method)
        table.insert(1, "category", category)
        table.insert(3, "source_id", study.source_ids(category, test.ids))
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _with_facts(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` (with category and source_id) with the facts and bins of the clean image behind
    each row.
    """
    facts = pd.concat(
        [defect_facts(study, category) for category in study.categories], ignore_index=True
    )
    facts = facts.set_index("image")[list(FACTS)]
    return table.join(facts, on="source_id")


def defects(study: Study, scenario: str) -> pd.DataFrame:
    """The defect images of ``decisions`` with ``detected`` (bool) and ``FACTS``, which are NaN
    where there is no mask.

    A twin has the facts and bins of its clean source. A defect that left the frame counts, as it
    does in recall.
    """
    table = decisions(study, scenario)
    table = table[table.label == 1].reset_index(drop=True)
    return _with_facts(study, table.assign(detected=table.decision == 1))


def errors(study: Study, scenario: str) -> pd.DataFrame:
    """All false positives and false negatives of a scenario, each cell's worst first; written to a
    csv, too.

    Columns: method, category, id, defect_type, kind, score, margin, source_id, ``FACTS``
    (``outputs/<profile>/results/errors/<scenario>.csv``).
    """
    parts = []
    for method, category in study.cells:
        threshold = evaluate_cell(study, scenario, method, category)["threshold"]["value"]
        table = error_tables.error_table(tested(study, scenario, method, category), threshold)
        table.insert(0, "method", method)
        table.insert(1, "category", category)
        parts.append(table.assign(source_id=study.source_ids(category, table.id)))
    table = _with_facts(study, pd.concat(parts, ignore_index=True))
    write_csv(_folder(study) / f"{scenario}.csv", table)
    return table


def recall_rows(study: Study, scenario: str) -> list[dict[str, Any]]:
    """Rows of the tidy table: recall of each defect type and bin, and the share that all methods
    miss.

    Metrics: ``recall`` of each ``defect_type``, ``size``, ``border`` and ``contrast``, each with its
    Clopper-Pearson interval and the number of its defect images; ``missed_by_all`` for the method
    ``all``. A category without masks has no rows of size, border and contrast.
    """
    table, level, seed = (
        defects(study, scenario),
        study.config.evaluation.confidence,
        study.config.seed,
    )
    rows = []
    for (method, category), own in table.groupby(["method", "category"], sort=False):
        metrics = {}
        for name in ("defect_type", *PROPERTIES):
            for part in error_tables.recall_by(own.detected, own[name], level).itertuples():
                metrics[detailed("recall", **{name: part.group})] = stated(
                    part.recall, part.n, part.ci_low, part.ci_high
                )
        rows += to_rows(scenario, method, category, seed, metrics)
    for category, own in table.groupby("category", sort=False):
        missed = error_tables.missed_by_all(_by_method(own))
        share, low, high = share_interval(int(missed.sum()), len(missed), level)
        rows += to_rows(
            scenario,
            ALL_METHODS,
            category,
            seed,
            {"missed_by_all": stated(share, len(missed), low, high)},
        )
    return rows


def _by_method(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Decisions about one category's defect images by method; ``decisions`` has them in one order
    for all.
    """
    return {method: own.detected.to_numpy() for method, own in table.groupby("method", sort=False)}


def hard_cases(study: Study, scenario: str) -> pd.DataFrame:
    """Every defect image, the hardest first: who misses it, and how far it stands out from the good
    ones.

    Columns: category, id, source_id, defect_type, ``FACTS``, missed_by (see ``errors.missed_by``),
    missed_by_all (bool), hardness, and each method's margin (``margin_<method>``). ``hardness`` is
    the smallest ``good_above`` of all methods: even the best of them finds this share of the good
    images at least as anomalous. Sorted by missed_by_all, then hardness.
    """
    table = defects(study, scenario)
    parts = []
    for _, own in table.groupby("category", sort=False):
        decided = _by_method(own)
        margins = own.pivot(index="id", columns="method", values="margin").add_prefix("margin_")
        first = own[own.method == own.method.iloc[0]]
        part = first[["category", "id", "source_id", "defect_type", *FACTS]].assign(
            missed_by=error_tables.missed_by(decided),
            missed_by_all=error_tables.missed_by_all(decided),
            hardness=own.groupby("id", sort=False).good_above.min().to_numpy(),
        )
        parts.append(part.join(margins[[f"margin_{method}" for method in decided]], on="id"))
    cases = pd.concat(parts, ignore_index=True)
    return cases.sort_values(
        ["missed_by_all", "hardness"], ascending=False, kind="stable"
    ).reset_index(drop=True)


def margin_tests(study: Study, scenario: str) -> pd.DataFrame:
    """``errors.margin_tests`` of each method and category; ``p_holm`` is adjusted over all of these
    questions.
    """
    parts = []
    for (method, category), own in defects(study, scenario).groupby(
        ["method", "category"], sort=False
    ):
        part = error_tables.margin_tests(own)
        part.insert(0, "method", method)
        part.insert(1, "category", category)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
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
        cells=[cell(study, scenario, *asked).key for asked in study.cells],
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
        tested_on=[study.predicted(*asked, **tests).key for asked in study.cells],
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
