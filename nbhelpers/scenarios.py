"""A scenario is a row of a table: what the model was fitted on, where the threshold and the test
images come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

#: What a detector was fitted on when it was on the clean training images of all categories pooled.
GLOBAL = "global"


@dataclass(frozen=True)
class Scenario:
    """One row of the study's protocol.

    Attributes:
        name: What it is called in every table.
        fitted_on: Domain of the training images, or ``global``.
        threshold_domain: Domain of the validation images that calibrate the threshold.
        test_domain: Domain of the test images.
        results_file: The JSON view of its results.
        one_threshold: The validation images of all categories calibrate one threshold for all of
            them.
    """

    name: str
    fitted_on: str
    threshold_domain: str
    test_domain: str
    results_file: str
    one_threshold: bool = False

    @property
    def calibrates(self) -> dict[str, str]:
        """Which predictions calibrate the threshold, as ``Study.predictions`` is asked for them."""
        return {"fitted_on": self.fitted_on, "domain": self.threshold_domain, "split": "val"}

    @property
    def tests(self) -> dict[str, str]:
        """Which predictions are tested, as ``Study.predictions`` is asked for them."""
        return {"fitted_on": self.fitted_on, "domain": self.test_domain, "split": "test"}


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("clean", "clean", "clean", "clean", "clean_results.json"),
        Scenario("no_adaptation", "clean", "clean", "shift", "shifted_no_adaptation_results.json"),
        Scenario("threshold_only", "clean", "shift", "shift", "shift_threshold_only_results.json"),
        Scenario(
            "full_adaptation", "shift", "shift", "shift", "shift_with_adaptation_results.json"
        ),
        Scenario("global", GLOBAL, "clean", "clean", "global_results.json"),
        Scenario(
            "global_one_threshold",
            GLOBAL,
            "clean",
            "clean",
            "global_one_threshold_results.json",
            True,
        ),
    )
}
#: (before, after): what the difference of the two says.
COMPARISONS = {
    ("clean", "no_adaptation"): "what the shift costs",
    ("no_adaptation", "threshold_only"): "what a new threshold gives back",
    ("threshold_only", "full_adaptation"): "what a new model adds",
    ("clean", "full_adaptation"): "what is still lost after full adaptation",
    ("clean", "global"): "what one model for all costs",
    ("global", "global_one_threshold"): "what one threshold for all costs",
}


def fit_domains(names: Iterable[str]) -> tuple[str, ...]:
    """Domains that per-category detectors are fitted on for these scenarios."""
    return tuple(
        dict.fromkeys(SCENARIOS[n].fitted_on for n in names if SCENARIOS[n].fitted_on != GLOBAL)
    )


if TYPE_CHECKING:
    ScenarioName = str
else:
    ScenarioName = Literal[tuple(SCENARIOS)]
