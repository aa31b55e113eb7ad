"""From a configuration to the jobs of its run, after a check of the images that they read."""

from typing import Any

from nbhelpers.config import Config
from nbhelpers.data.layout import find_categories, root_findings, survey_category
from nbhelpers.files import hash_file
from nbhelpers.runner import graph
from nbhelpers.runner.graph import Job


def check_inputs(config: Config) -> dict[str, str]:
    """Check what a run reads before anything is computed.

    What is odd about the folders of images, such as files that are left out, is printed, one line
    per finding.

    Returns:
        By category, a digest of the listing of its images.

    Raises:
        ConfigError: The threshold rule is unknown.
        DataError: The data root, a category or one of its folders is missing, or masks and images
            do not fit together.
    """
    from nbhelpers.evaluation.thresholds.rules import get_rule  # slow, so after the settings

    get_rule(config.evaluation.threshold_rule)
    root, categories = config.data_root, config.data.categories
    if config.data.source != "folder":
        return dict.fromkeys(categories, "drawn from the settings")
    all_categories = not categories
    categories = categories or tuple(find_categories(root))
    scans = {name: survey_category(root, name, config.data.masks_pattern) for name in categories}
    findings = root_findings(root) if all_categories else []
    for finding in [*findings, *(each for scan in scans.values() for each in scan.findings)]:
        print(finding)
    return {name: graph.listing_digest(root, scan.files) for name, scan in scans.items()}


def plan(config: Config, overrides: dict[str, Any], listings: dict[str, str]) -> list[Job]:
    """List the jobs of a configuration, in reading order.

    Args:
        config: The study's configuration.
        overrides: The settings that were changed on the command line; every notebook gets them.
        listings: By category, the digest that ``check_inputs`` returned.
    """
    from nbhelpers.scenarios import fit_domains

    return graph.build_jobs(
        axes={
            "category": tuple(listings),
            "domain": fit_domains(config.scenarios),
            "architecture": config.architectures,
        },
        parameters={"profile": config.profile, "overrides": overrides},
        inputs={
            "code": graph.code_digest(),
            "settings": config.digest(),
            "splits": hash_file(config.splits_path) if config.splits_path.is_file() else "none",
        },
        data=listings,
        table=graph.needed(config.methods, config.scenarios),
    )
