"""The study's code: data -> models -> evaluation -> analyses -> figures -> report, tied together by
``study``.
"""

__version__ = "0.1.0"
