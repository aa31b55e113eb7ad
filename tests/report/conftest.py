"""The made-up study of ``tests/tables.py`` as fixtures."""

from tests.tables import bare, pictures, report, results, three, tidy, views  # noqa: F401
