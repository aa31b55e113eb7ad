"""From a configuration to the jobs of its run, after a check of the images that they read."""

from typing import Any

from nbhelpers.config import Config
from nbhelpers.data.layout import find_categories, survey_category
from nbhelpers.files import hash_file
from nbhelpers.runner import graph
from nbhelpers.runner.graph import Job


def plan(config: Config, overrides: dict[str, Any]) -> list[Job]:
    """List the jobs of a configuration, in reading order.

    Args:
        config: The study's configuration.
        overrides: The settings that were changed on the command line; every notebook gets them.

    Raises:
        ConfigError: The threshold rule is unknown.
        DataError: The data root, a category or one of its folders is missing, or an image lacks its
            mask.
    """
    from nbhelpers.evaluation.thresholds.rules import get_rule  # slow, so after the settings
    from nbhelpers.scenarios import fit_domains

    get_rule(config.evaluation.threshold_rule)

    root, categories = config.data_root, config.data.categories
    if config.data.source == "folder":
        categories = categories or tuple(find_categories(root))
        data = {}
        for category in categories:
            scan = survey_category(root, category, config.data.masks_pattern)
            data[category] = graph.listing_digest(root, scan.files)
    else:
        data = dict.fromkeys(categories, "drawn from the settings")
    return graph.build_jobs(
        axes={
            "category": categories,
            "domain": fit_domains(config.scenarios),
            "architecture": config.architectures,
        },
        parameters={"profile": config.profile, "overrides": overrides},
        inputs={
            "code": graph.code_digest(),
            "settings": config.digest(),
            "splits": hash_file(config.splits_path) if config.splits_path.is_file() else "none",
        },
        data=data,
        table=graph.needed(config.methods, config.scenarios),
    )
