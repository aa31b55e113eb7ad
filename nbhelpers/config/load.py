"""The study's configuration: YAML in, one frozen and typed object out; refuses what it does not
know.

Order, later wins: ``configs/base.yaml``, ``configs/<family>.yaml`` (patchcore, padim, autoencoder;
under its name), ``configs/<profile>.yaml``, a preset of ``configs/presets.yaml``, the environment
variable ``STUDY_WORKSPACE``, overrides. No default is written in code, so the YAML files are the
whole truth.
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
from nbhelpers.files import write_text
from nbhelpers.methods import METHODS, MethodName, architecture_of
from nbhelpers.runtime import ROOT
from nbhelpers.scenarios import ScenarioName

FAMILIES = tuple(
    dict.fromkeys(Path(row.file).stem for row in METHODS.values())
)  # each a section and a file
NO_PRESET = "none"
WORKSPACE_VARIABLE = "STUDY_WORKSPACE"


class _Loader(yaml.SafeLoader):
    """Takes 1e-4 for the number that everybody means, as YAML 1.2 does; PyYAML knows 1.0e-4 only."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class Config(Settings):
    """Everything that decides a study's numbers, and where they are written."""

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
        """Autoencoders that are looked at one by one: those that are asked for, and those among the
        methods.
        """
        among = (architecture_of(method) for method in self.methods)
        return tuple(
            dict.fromkeys([*self.autoencoder.architectures, *(name for name in among if name)])
        )

    @property
    def workspace_dir(self) -> Path:
        """Where ``data/`` and ``outputs/`` lie; a relative workspace starts at the project's root."""
        return ROOT / self.workspace

    @property
    def shared_dir(self) -> Path:
        """``outputs/<profile>``, with ``@<folder>-<hash>`` behind it for a data root that is not the
        profile's own: what is fitted on clean images and says nothing of a shift.
        """
        name = self.profile
        if self.data.root != _profile(name).data.root:
            name += f"@{Path(self.data.root).name}-{digest(self.data.root)[:6]}"
        return self.workspace_dir / "outputs" / name

    @property
    def output_dir(self) -> Path:
        """``shared_dir``, with ``+<shift>-<hash>`` behind it for a shift that is not the profile's
        own: so variants of the shift stand side by side in one workspace.
        """
        if self.shift == _profile(self.profile).shift:
            return self.shared_dir
        return self.shared_dir.with_name(f"{self.shared_dir.name}+{self.shift_name}")

    @property
    def shift_name(self) -> str:
        """The severity, the chosen parts and a hash of all settings of the shift."""
        shift = self.shift
        parts = [shift.severity, *shift.only, digest(shift.model_dump(mode="json"))[:6]]
        return "-".join(parts)

    @property
    def splits_path(self) -> Path:
        """The file that says which image is in which split, for this profile and data root."""
        folder = self.workspace_dir / "data" / "processed" / self.shared_dir.name
        return folder / "clean_splits.json"

    @property
    def data_root(self) -> Path:
        """The folder of categories; a relative one starts at the workspace."""
        return self.workspace_dir / Path(self.data.root).expanduser()

    @property
    def shifted_dir(self) -> Path:
        """Where the shifted images of this data root and shift are written."""
        return self.workspace_dir / "data" / "shifted" / self.shared_dir.name / self.shift_name

    def changed(self, overrides: Mapping[str, Any]) -> Config:
        """This configuration with some settings changed (dotted keys); ConfigError as
        ``load_config``.

        A preset is a set of settings that ``load_config`` lays down; it cannot be changed
        afterwards.
        """
        if "preset" in overrides:
            raise ConfigError(
                f"setting 'preset': expected it at load_config, found {overrides['preset']!r} for a "
                "configuration that is made; load it anew"
            )
        values = _lay(self.model_dump(mode="json"), _nest(overrides))
        return _validated(values.pop("profile"), values)

    def digest(self) -> str:
        """Hash of all settings but the workspace, which moves files and changes no number."""
        return digest(self.model_dump(mode="json", exclude={"workspace"}))


@lru_cache(maxsize=8)
def _profile(name: str) -> Config:
    """A profile's own configuration, without presets and overrides."""
    return load_config(name) if name in profiles() else load_config()


def digest(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_yaml(text: str) -> Any:
    """The value that a text of YAML stands for; yaml.YAMLError if it is none."""
    return yaml.load(text, _Loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path.name}: expected YAML, found {str(error).splitlines()[0]}; mend the file"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path.name}: expected settings as key: value, found {type(content).__name__}"
        )
    return content


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, section by section; neither is touched."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _lay(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` laid over it; what changes for all networks' training, no network
    keeps for itself.

    Else an override of ``autoencoder.training.epochs`` would pass by a network whose own a preset
    has set.
    """
    shared = _section(changes, "autoencoder", "training")
    networks = {
        name: {
            **network,
            "training": {key: own for key, own in network["training"].items() if key not in shared},
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
    """A section of nested settings; empty where there is none, or something else."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation if isinstance(field.annotation, type) else None
        nested = inner is not None and issubclass(inner, BaseModel)
        keys += _known_keys(inner, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def _nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        inner: Any = value
        for part in reversed(str(key).split(".")):
            inner = {part: inner}
        nested = _merge(nested, inner)
    return nested


def _explain(error: ValidationError) -> str:
    """One line for the first fault: the key, what was wanted, what was found."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, _known_keys(Config), n=1, cutoff=0.5)
        hint = (
            f"; did you mean {close[0]}?" if close else "; see configs/base.yaml for the known ones"
        )
        return f"unknown setting '{key}' (value {fault['input']!r}){hint}"
    if fault["type"] == "value_error" and isinstance(
        fault["input"], Mapping
    ):  # settings that do not fit together
        return f"setting '{key}': wanted {fault['ctx']['error']}"
    wanted = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    wanted = (
        wanted.replace("tuple", "list").replace("Tuple", "list").replace("dictionary", "mapping")
    )
    return f"setting '{key}': wanted {wanted}, found {fault['input']!r} ({type(fault['input']).__name__})"


def profiles() -> list[str]:
    """Names that ``load_config`` takes."""
    return sorted(
        p.stem
        for p in (ROOT / "configs").glob("*.yaml")
        if p.stem not in ("base", "presets", *FAMILIES)
    )


def presets() -> dict[str, dict[str, Any]]:
    """The named sets of settings of ``configs/presets.yaml``."""
    return _read_yaml(ROOT / "configs" / "presets.yaml")


def load_config(profile: str = "tiny", overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a profile and lay overrides (dotted keys, e.g. ``{"data.image_size": 256}``) over it.

    Raises:
        ConfigError: unknown profile or key, wrong type (papermill's ``-p`` delivers strings), value
            out of range.
    """
    if profile not in profiles():
        raise ConfigError(f"unknown profile {profile!r}; configs/ has: {', '.join(profiles())}")
    if not isinstance(overrides or {}, Mapping):
        raise ConfigError(f"overrides: wanted a mapping of setting to value, found {overrides!r}")
    values = _read_yaml(ROOT / "configs" / "base.yaml")
    for family in FAMILIES:
        values[family] = _read_yaml(ROOT / "configs" / f"{family}.yaml")
    values = _lay(values, _read_yaml(ROOT / "configs" / f"{profile}.yaml"))
    changes = _nest(overrides or {})
    preset, known = changes.get("preset", values["preset"]), presets()
    if preset != NO_PRESET and preset not in known:
        raise ConfigError(
            f"setting 'preset': wanted {NO_PRESET} or one of {', '.join(known)}, found {preset!r}; "
            "multi is for any category without one of its own"
        )
    values = _lay(values, known.get(preset, {}))
    if os.environ.get(WORKSPACE_VARIABLE):
        values["workspace"] = os.environ[WORKSPACE_VARIABLE]
    return _validated(profile, _lay(values, changes))


def write_config(config: Config, path: Path) -> None:
    """Write every setting as YAML; ``read_config`` gives an equal configuration back."""
    write_text(
        path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )


def read_config(path: Path) -> Config:
    """Read what ``write_config`` wrote; ConfigError as ``load_config``, or for a file that is not
    there.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path}: expected a configuration, found no such file; write one with write_config"
        )
    values = _read_yaml(path)
    return _validated(str(values.pop("profile", None)), values)


def _validated(profile: str, values: dict[str, Any]) -> Config:
    try:
        return Config(profile=profile, **values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except TypeError:
        raise ConfigError("setting 'profile' is chosen by --profile, not by an override") from None
