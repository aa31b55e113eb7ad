"""A study is asked by name for splits, detectors and predictions, and computes each of them once."""

from nbhelpers.study.artefacts import Artefact
from nbhelpers.study.study import Study, open_study

__all__ = ["Artefact", "Study", "open_study"]
