"""Asked by name, computes once: a study gives splits, images, detectors, predictions and results as artefacts."""

from nbhelpers.study.artefacts import Artefact
from nbhelpers.study.study import Study, open_study

__all__ = ["Artefact", "Study", "open_study"]
