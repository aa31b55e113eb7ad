"""Image scores of the CV+ refits: each detector is fitted without one fold of the good images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nbhelpers.data.splits import group_keys
from nbhelpers.evaluation.thresholds.conformal import assign_folds
from nbhelpers.files import write_text
from nbhelpers.study import Artefact, Study


def cross_scores(study: Study, method: str, category: str) -> pd.DataFrame:
    """Image scores of the CV+ refits; they are stored once, like predictions.

    The good images of train and validation are divided into folds, so that all images of one
    object are in one fold. One detector is fitted without each fold (Barber et al., Ann. Statist.
    2021).

    Returns:
        One row per score. Columns: fold (the fold that the refit did not see), part
        (``calibration`` for the images of that fold, ``test clean`` or ``test shift``), id,
        label, score.
    """
    return crossed_scores(study, method, category).get()


def crossed_scores(study: Study, method: str, category: str) -> Artefact[pd.DataFrame]:
    """``cross_scores`` as an artefact."""
    config = study.config
    folds = config.evaluation.conformal_folds

    def make(path: Path) -> None:
        split = study.split(category)
        pool = [*split["train"], *(s for s in split["val"] if not s.label)]
        groups = group_keys(pool, config.splits.groups.get(category))
        assigned = assign_folds([groups[s.id] for s in pool], folds, config.seed)
        tables = []
        for fold in range(folds):
            inside = [s for s, number in zip(pool, assigned, strict=True) if number == fold]
            outside = [s for s, number in zip(pool, assigned, strict=True) if number != fold]
            detector = study.new_detector(method).fit(outside)
            scored = {"calibration": inside}
            for domain in study.test_domains:
                scored[f"test {domain}"] = study.split(category, domain)["test"]
            for name, samples in scored.items():
                predictions = detector.predict(samples)
                tables.append(
                    pd.DataFrame(
                        {
                            "fold": fold,
                            "part": name,
                            "id": predictions.ids,
                            "label": predictions.labels,
                            "score": predictions.image_scores,
                        }
                    )
                )
        # nine digits give a float32 back as it was
        text = pd.concat(tables).to_csv(index=False, float_format="%.9g", lineterminator="\n")
        write_text(path, text)

    recipe = study.recipe(
        "cross_scores",
        "data.splits",
        functions=(crossed_scores, assign_folds),  # not their modules: no metric takes part
        detector=study.fitted(method, category),
        tested_on=[study.domain_key(category, domain) for domain in study.test_domains],
        folds=folds,
    )
    path = config.output_dir / "predictions" / f"{method}_{category}_folds.csv"
    return Artefact(path, recipe, make, _read, device=study.device)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str, "part": str}, keep_default_na=False)
