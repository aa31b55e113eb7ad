"""Helpers of the study: data -> models -> evaluation -> reporting, tied together by `study`."""

__version__ = "0.1.0"
