"""The configuration reference: every key with its type, its default and what its file says of it.

It is made from the typed settings of ``nbhelpers.config`` and the files in ``configs/``.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel

from nbhelpers.config import Config, load_config, parse_yaml, profiles
from nbhelpers.config.autoencoders import OwnTraining
from nbhelpers.config.load import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number"}


@dataclass(frozen=True)
class Setting:
    """One key of the configuration.

    Attributes:
        key: Its dotted name, as ``--set`` takes it.
        kind: Its type and range, in words.
        default: Its value in ``configs/base.yaml`` or the file of its family, as YAML.
        comment: What that file says of it.
        profiles: The values of the profiles that change it, as YAML, by profile.
    """

    key: str
    kind: str
    default: str
    comment: str
    profiles: Mapping[str, str]


def settings() -> list[Setting]:
    """Every key of the configuration, in the order of the typed settings."""
    defaults, comments = _defaults(), _comments()
    values = {name: load_config(name).model_dump(mode="json") for name in profiles()}
    rows = []
    for key, annotation, metadata in _leaves(Config):
        if key == "profile":  # the choice of a file, not a setting
            continue
        default = _at(defaults, key)
        changed = {
            name: _yaml(_at(value, key))
            for name, value in values.items()
            if _at(value, key) != default
        }
        rows.append(
            Setting(
                key, _kind(annotation, metadata), _yaml(default), comments.get(key, ""), changed
            )
        )
    return rows


def settings_reference() -> str:
    """All settings as MyST Markdown: one heading per section, one definition per key."""
    comments = _comments()
    by_section: dict[str, list[Setting]] = {}
    for row in settings():
        by_section.setdefault(row.key.rpartition(".")[0], []).append(row)
    lines: list[str] = []
    told: set[str] = set()
    for section, rows in by_section.items():
        outer = section.rpartition(".")[0]  # a section of sections may have a comment of its own
        for name in ([outer] if outer in comments else []) + [section]:
            if name in told:
                continue
            told.add(name)
            lines += [f"## {name or 'The study as a whole'}", ""]
            if name in comments:
                lines += [_escaped(comments[name]), ""]
        for row in rows:
            lines += [f"`{row.key}`", f": {_facts(row)}"]
            lines += ["", f": {_escaped(row.comment)}", ""] if row.comment else [""]
    return "\n".join(lines)


def _facts(row: Setting) -> str:
    """Type, default and the profiles' own values, as one sentence."""
    own = "".join(f", `{name}`: `{value}`" for name, value in row.profiles.items())
    return f"*{row.kind}*. Default: `{row.default}`{own}."


def _escaped(comment: str) -> str:
    """A comment as Markdown: what stands in angle brackets is text, no tag."""
    return comment.replace("<", "\\<")


# -- types in words ---------------------------------------------------------------------------------


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, list[Any]]]:
    """Dotted key, type and constraints of every field; a section gives its fields."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        section = isinstance(inner, type) and issubclass(inner, BaseModel)
        if section and inner is not OwnTraining:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner, list(field.metadata)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """A type and its constraints in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join(
            "nothing" if kind is type(None) else _kind(kind, metadata) for kind in arguments
        )
    if origin is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        several = _kind(arguments[0], [])
        least = next((m.min_length for m in metadata if hasattr(m, "min_length")), 0)
        return f"list{' with at least one entry' if least else ''}, each {several}"
    if origin is tuple:
        return f"[low, high], each {_kind(arguments[0], [])}"
    if origin is dict:
        return "mapping of a category's name to `{pattern, max_gap}`"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping of training settings to this network's own values"
    bounds = [
        words.format(getattr(item, name))
        for item in _constraints(metadata)
        for name, words in (
            ("ge", "at least {}"),
            ("gt", "above {}"),
            ("le", "at most {}"),
            ("lt", "below {}"),
        )
        if getattr(item, name, None) is not None
    ]
    return " ".join([WORDS[annotation], " and ".join(bounds)]).strip()


def _constraints(metadata: list[Any]) -> Iterator[Any]:
    """Bounds, also those inside a pydantic ``Field``."""
    for item in metadata:
        if isinstance(item, annotated_types.BaseMetadata):
            yield item
        else:
            yield from getattr(item, "metadata", ())


# -- values and comments of the files ---------------------------------------------------------------


def _files() -> Iterator[tuple[str, Path]]:
    """Each file that holds defaults, with the section that it fills."""
    yield "", ROOT / "configs" / "base.yaml"
    for family in FAMILIES:
        yield f"{family}.", ROOT / "configs" / f"{family}.yaml"


def _defaults() -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for prefix, path in _files():
        content = parse_yaml(path.read_text(encoding="utf-8"))
        merged |= {prefix.rstrip("."): content} if prefix else content
    return merged


def _at(values: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; an empty mapping where a network has no settings of its own."""
    for name in key.split("."):
        values = values.get(name, {}) if isinstance(values, Mapping) else {}
    if isinstance(values, Mapping):
        return {name: value for name, value in values.items() if value is not None}
    return values


def _yaml(value: Any) -> str:
    if isinstance(value, bool | int | float | str):
        return json.dumps(value) if value in ("", True, False) else str(value)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()


def _comments() -> dict[str, str]:
    """What the files say of their keys and sections, by dotted name."""
    return {
        f"{prefix}{key}": comment
        for prefix, path in _files()
        for key, comment in comments_of(path.read_text(encoding="utf-8")).items()
    }


def comments_of(text: str) -> dict[str, str]:
    """What a YAML file says of its keys and sections, by dotted name.

    A comment behind a value belongs to its key, and so do those below it that stand as far to the
    right. A comment on a line of its own belongs to the section whose first line it is, else to the
    key that follows it. The lines before the first key say what the file is for.
    """
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    above: list[str] = []
    key, opens, depth = "", False, 0
    for line in text.splitlines():
        content, comment = _split_comment(line)
        indent = len(line) - len(line.lstrip())
        match = None if depth else re.match(r"\s*([A-Za-z_]\w*):(.*)", content)
        depth += sum(content.count(sign) for sign in "{[") - sum(
            content.count(sign) for sign in "}]"
        )
        if match:
            while stack and stack[-1][0] >= indent:
                stack.pop()
            stack.append((indent, match[1]))
            key, opens = ".".join(name for _, name in stack), not match[2].strip()
            found[key] = "; ".join([*above, *([comment] if comment else [])])
            above = []
        elif comment and key:
            behind = bool(content.strip()) or indent > stack[-1][0] + 8
            if behind or opens:
                joint = " " if behind else "; "
                found[key] = f"{found[key]}{joint}{comment}".strip("; ")
            else:
                above.append(comment)
    return {key: comment for key, comment in found.items() if comment}


def _split_comment(line: str) -> tuple[str, str]:
    """A line of YAML without its comment, and the comment."""
    match = re.search(r"(?:^|\s)#\s*(.*)$", line)
    return (line[: match.start()], match[1]) if match else (line, "")
