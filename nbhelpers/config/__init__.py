"""The typed, frozen configuration: YAML in, one ``Config`` out; unknown keys and wrong types are
refused.
"""

from nbhelpers.config.load import (
    NO_PRESET,
    ROOT,
    WORKSPACE_VARIABLE,
    Config,
    digest,
    load_config,
    parse_yaml,
    presets,
    profiles,
)

__all__ = [
    "NO_PRESET",
    "ROOT",
    "WORKSPACE_VARIABLE",
    "Config",
    "digest",
    "load_config",
    "parse_yaml",
    "presets",
    "profiles",
]
