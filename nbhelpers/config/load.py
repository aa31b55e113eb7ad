"""Reads the study's configuration: YAML in, one frozen and typed object out.

The layers, of which a later one wins: ``configs/base.yaml``; ``configs/<family>.yaml`` (patchcore,
padim, autoencoder), each as the section of its name; ``configs/<profile>.yaml``; a preset of
``configs/presets.yaml``; the environment variable ``STUDY_WORKSPACE``; overrides. The code holds no
default values: every value is in the YAML files, with a comment that says what it sets.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from nbhelpers.config.autoencoders import AutoencoderConfig
from nbhelpers.config.sections import (
    BackboneConfig,
    DataConfig,
    EvaluationConfig,
    LoaderConfig,
    PadimConfig,
    PatchCoreConfig,
    PositiveInt,
    Settings,
    ShiftConfig,
    SplitConfig,
)
from nbhelpers.errors import ConfigError
from nbhelpers.methods import METHODS, MethodName, architecture_of
from nbhelpers.runtime import ROOT
from nbhelpers.scenarios import ScenarioName

#: Families of methods: each has a file in ``configs/`` and the section of its name.
FAMILIES = tuple(dict.fromkeys(Path(row.file).stem for row in METHODS.values()))
NO_PRESET = "none"
WORKSPACE_VARIABLE = "STUDY_WORKSPACE"


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 does; PyYAML by itself reads only 1.0e-4 as one."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class Config(Settings):
    """Everything that decides a study's numbers, and where they are written.

    The comments in ``configs/`` say what each key sets, with its unit; ``profile`` is the name of
    the profile's file and is no key of any file.
    """

    profile: str
    preset: str
    seed: Annotated[int, Field(ge=0)]
    workspace: str
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: PositiveInt
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)]
    scenarios: Annotated[tuple[ScenarioName, ...], Field(min_length=1)]
    data: DataConfig
    splits: SplitConfig
    loader: LoaderConfig
    backbone: BackboneConfig
    smoothing_sigma: Annotated[float, Field(ge=0)]
    tta: Literal["none", "flips"]
    shift: ShiftConfig
    patchcore: PatchCoreConfig
    padim: PadimConfig
    autoencoder: AutoencoderConfig
    evaluation: EvaluationConfig

    @property
    def architectures(self) -> tuple[str, ...]:
        """The autoencoders to study one by one: the configured ones, and those among the methods."""
        of_methods = [architecture_of(method) for method in self.methods]
        names = [*self.autoencoder.architectures, *(name for name in of_methods if name)]
        return tuple(dict.fromkeys(names))

    @property
    def workspace_dir(self) -> Path:
        """The folder of ``data/`` and ``outputs/``; a relative one is below the project's folder."""
        return ROOT / self.workspace

    @property
    def shared_dir(self) -> Path:
        """The folder of what is made from clean images and does not depend on the shift.

        It is ``outputs/<profile>``, followed by ``@<folder>-<hash>`` for a data root other than the
        profile's own.
        """
        name = self.profile
        if self.data.root != _profile(name).data.root:
            name += f"@{Path(self.data.root).name}-{digest(self.data.root)[:6]}"
        return self.workspace_dir / "outputs" / name

    @property
    def output_dir(self) -> Path:
        """The folder of results: ``shared_dir``, followed by ``+<shift>-<hash>`` for shift settings
        other than the profile's own, so that one workspace holds several variants of the shift.
        """
        if self.shift == _profile(self.profile).shift:
            return self.shared_dir
        return self.shared_dir.with_name(f"{self.shared_dir.name}+{self.shift_name}")

    @property
    def shift_name(self) -> str:
        """The severity, the chosen parts of the shift and a hash of all its settings, as one name."""
        shift = self.shift
        return "-".join([shift.severity, *shift.only, digest(shift.model_dump(mode="json"))[:6]])

    @property
    def splits_path(self) -> Path:
        """The file that says which image is in which split, for this profile and data root."""
        folder = self.workspace_dir / "data" / "processed" / self.shared_dir.name
        return folder / "clean_splits.json"

    @property
    def data_root(self) -> Path:
        """The folder of categories; a relative one is below the workspace."""
        return self.workspace_dir / Path(self.data.root).expanduser()

    @property
    def shifted_dir(self) -> Path:
        """The folder of the shifted images for this data root and these shift settings."""
        return self.workspace_dir / "data" / "shifted" / self.shared_dir.name / self.shift_name

    def changed(self, overrides: Mapping[str, Any]) -> Config:
        """A copy of this configuration with some settings changed.

        Args:
            overrides: Values by dotted key, for example ``{"data.image_size": 256}``.

        Raises:
            ConfigError: As ``load_config``; or ``preset`` is among the keys, which can only be set
                when the configuration is loaded.
        """
        if "preset" in overrides:
            raise ConfigError(
                "setting 'preset': expected it in load_config(), found "
                f"{overrides['preset']!r} for a loaded configuration; load the configuration again"
            )
        values = _lay(self.model_dump(mode="json"), _nest(overrides))
        return _validated(values.pop("profile"), values)

    def digest(self) -> str:
        """Hash of all settings except the workspace, which moves files but changes no number."""
        return digest(self.model_dump(mode="json", exclude={"workspace"}))


@lru_cache(maxsize=8)
def _profile(name: str) -> Config:
    """A profile's configuration without a preset and without overrides."""
    return load_config(name) if name in profiles() else load_config()


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value in canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        yaml.YAMLError: The text is not valid YAML.
    """
    return yaml.load(text, _Loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path.name}: expected valid YAML, found {str(error).splitlines()[0]}; fix the file"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path.name}: expected settings as key: value, found {type(content).__name__}; fix the file"
        )
    return content


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with ``changes`` laid over it, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        both_sections = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_sections else value
    return merged


def _lay(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``values`` with ``changes`` laid over it.

    A training setting that changes for all networks is removed from the networks that set it
    themselves. Otherwise an override of ``autoencoder.training.epochs`` would not reach a network
    whose epochs a preset has set.
    """
    shared = _section(changes, "autoencoder", "training")
    networks = {
        name: {
            **network,
            "training": {
                key: value for key, value in network["training"].items() if key not in shared
            },
        }
        for name, network in _section(values, "autoencoder", "networks").items()
        if shared.keys() & _section(network, "training").keys()
    }
    if networks:
        options = values["autoencoder"]
        values = {
            **values,
            "autoencoder": {**options, "networks": {**options["networks"], **networks}},
        }
    return _merge(values, changes)


def _section(values: Any, *names: str) -> Mapping[str, Any]:
    """A section of nested settings; empty when it is missing or is not a section."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of all settings of a section and of the sections inside it."""
    keys = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into sections: ``{"a.b": 1}`` becomes ``{"a": {"b": 1}}``."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        section: Any = value
        for name in reversed(str(key).split(".")):
            section = {name: section}
        nested = _merge(nested, section)
    return nested


def _explain(error: ValidationError) -> str:
    """One line for the first fault: the key, the expected value, and the value found."""
    fault = error.errors()[0]
    key = ".".join(str(name) for name in fault["loc"])
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known_keys(Config), n=1, cutoff=0.5)
        hint = (
            f"; did you mean {close[0]}?" if close else "; see configs/base.yaml for the known ones"
        )
        return f"unknown setting '{key}' (value {fault['input']!r}){hint}"
    # settings of one section that do not fit together: the message says what was found
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
        return f"setting '{key}': expected {fault['ctx']['error']}"
    expected = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    yaml_words = {"tuple": "list", "Tuple": "list", "dictionary": "mapping"}
    for python_word, yaml_word in yaml_words.items():
        expected = expected.replace(python_word, yaml_word)
    found = f"{fault['input']!r} ({type(fault['input']).__name__})"
    return f"setting '{key}': expected {expected}, found {found}"


def profiles() -> list[str]:
    """Names of the profiles, as ``load_config`` takes them."""
    return sorted(
        p.stem
        for p in (ROOT / "configs").glob("*.yaml")
        if p.stem not in ("base", "presets", *FAMILIES)
    )


def presets() -> dict[str, dict[str, Any]]:
    """The named sets of settings in ``configs/presets.yaml``."""
    return _read_yaml(ROOT / "configs" / "presets.yaml")


def load_config(profile: str = "tiny", overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a profile and lay overrides over it.

    Args:
        profile: Name of a file in ``configs/``, for example ``tiny``.
        overrides: Values by dotted key, for example ``{"data.image_size": 256}``, or nested as in
            YAML; ``preset`` names a set of settings to lay over the profile first.

    Raises:
        ConfigError: The profile or a key is unknown, a value has the wrong type (papermill's ``-p``
            passes strings) or is out of range.
    """
    if profile not in profiles():
        raise ConfigError(f"unknown profile {profile!r}; configs/ has: {', '.join(profiles())}")
    if not isinstance(overrides or {}, Mapping):
        raise ConfigError(f"overrides: expected a mapping of setting to value, found {overrides!r}")
    values = _read_yaml(ROOT / "configs" / "base.yaml")
    for family in FAMILIES:
        values[family] = _read_yaml(ROOT / "configs" / f"{family}.yaml")
    values = _lay(values, _read_yaml(ROOT / "configs" / f"{profile}.yaml"))
    changes = _nest(overrides or {})
    preset, known = changes.get("preset", values["preset"]), presets()
    if preset != NO_PRESET and preset not in known:
        raise ConfigError(
            f"setting 'preset': expected {NO_PRESET} or one of {', '.join(known)}, found {preset!r}; "
            "multi is for any category without a preset of its own"
        )
    values = _lay(values, known.get(preset, {}))
    if os.environ.get(WORKSPACE_VARIABLE):
        values["workspace"] = os.environ[WORKSPACE_VARIABLE]
    return _validated(profile, _lay(values, changes))


def _validated(profile: str, values: dict[str, Any]) -> Config:
    try:
        return Config(profile=profile, **values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except TypeError:
        raise ConfigError("setting 'profile' is chosen by --profile, not by an override") from None
