"""The table of scenarios: what the model is fitted on, and where the threshold and the test images
come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

#: Value of ``fitted_on`` for a detector fitted on the pooled clean training images of all categories.
GLOBAL = "global"


@dataclass(frozen=True)
class Scenario:
    """One row of the study's protocol.

    Attributes:
        name: The name in every table.
        fitted_on: Domain of the training images, or ``global``.
        threshold_domain: Domain of the validation images that calibrate the threshold.
        test_domain: Domain of the test images.
        results_file: Name of the JSON file with its results.
        one_threshold: Whether one threshold, calibrated on the validation images of all categories,
            serves all of them.
    """

    name: str
    fitted_on: str
    threshold_domain: str
    test_domain: str
    results_file: str
    one_threshold: bool = False

    @property
    def calibrates(self) -> dict[str, str]:
        """Keyword arguments of ``Study.predictions`` for the images that calibrate the threshold."""
        return {"fitted_on": self.fitted_on, "domain": self.threshold_domain, "split": "val"}

    @property
    def tests(self) -> dict[str, str]:
        """Keyword arguments of ``Study.predictions`` for the images that are tested."""
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
#: Pairs of scenarios (before, after), and what the difference of their results tells.
COMPARISONS = {
    ("clean", "no_adaptation"): "what the shift costs",
    ("no_adaptation", "threshold_only"): "what a new threshold gives back",
    ("threshold_only", "full_adaptation"): "what a new model adds",
    ("clean", "full_adaptation"): "what is still lost after full adaptation",
    ("clean", "global"): "what one model for all costs",
    ("global", "global_one_threshold"): "what one threshold for all costs",
}


def fit_domains(names: Iterable[str]) -> tuple[str, ...]:
    """The domains on which per-category detectors are fitted for the scenarios of these names."""
    fitted_on = dict.fromkeys(SCENARIOS[name].fitted_on for name in names)
    return tuple(domain for domain in fitted_on if domain != GLOBAL)


if TYPE_CHECKING:
    ScenarioName = str
else:
    ScenarioName = Literal[tuple(SCENARIOS)]
