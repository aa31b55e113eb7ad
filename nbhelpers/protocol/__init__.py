"""The study's protocol: scenario cells, what compares them, and the one tidy table that holds every number."""

from nbhelpers.protocol.cells import evaluate_cell, run_scenario  # noqa: F401, E402  bridge
from nbhelpers.protocol.table import write_metrics  # noqa: F401, E402  bridge
