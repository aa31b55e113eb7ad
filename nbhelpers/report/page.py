"""The report as one self-contained HTML page.

Every number names the row of the tidy table that it was read from. The text and the style are in
``page.html``, the sentences with numbers in ``sentences``, the tables in ``tables``. This module
puts them together; no number is typed in.
"""

from __future__ import annotations

import base64
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nbhelpers.config.autoencoders import BOOKKEEPING
from nbhelpers.errors import DataError
from nbhelpers.figures.style import DPI
from nbhelpers.methods import architecture_of
from nbhelpers.report import sentences as findings
from nbhelpers.report.formats import Cell, Field, ReportTable
from nbhelpers.results.numbers import ALPHA, Number, Results, label
from nbhelpers.results.table import MACRO

TEMPLATE = "page.html"
#: In a table with more number columns than this, intervals stand below their values.
WIDE_TABLE = 5
CSS_DPI = 96


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        png: The bytes of the PNG file.
        caption: What is shown and how to read it, in whole sentences.
        alt: What a reader who cannot see the figure should know.
    """

    png: bytes
    caption: str
    alt: str

    @property
    def data(self) -> str:
        """The picture as a ``data:`` address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in CSS pixels at which the text in it has its intended size."""
        width, height = struct.unpack(">II", self.png[16:24])  # in the first chunk of a PNG
        return round(width * CSS_DPI / DPI), round(height * CSS_DPI / DPI)


def build_report(
    results: Results,
    tables: Mapping[str, ReportTable],
    views: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, Picture],
    date: str,
) -> str:
    """The report as HTML.

    The same input gives the same bytes; another date changes only the line that holds it.

    Args:
        results: The tidy table, ``outputs/<profile>/results/metrics.csv``.
        tables: The tables that ``all_tables`` makes of it, by name.
        views: The stored JSON view of each scenario by name: protocol, methods, and provenance
            with the configuration.
        pictures: Figures by name; a missing one is left out.
        date: When the report was written.

    Raises:
        DataError: No scenario was evaluated.
    """
    scenarios = [name for name in results.scenarios if name in views]
    if not scenarios:
        raise DataError("expected the results of at least one scenario, found none; run make study")
    facts = {name: views[name]["provenance"] for name in scenarios}
    page = _Page(tables, pictures, facts[scenarios[0]]["config"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["label"] = label
    environment.filters["architecture"] = architecture_of
    return environment.get_template(TEMPLATE).render(
        page=page,
        results=results,
        find=findings,
        date=date,
        facts=facts,
        config=page.config,
        alpha=ALPHA,
        protocol={name: views[name]["protocol"] for name in scenarios},
        scenarios=scenarios,
        macro=MACRO,
        config_text=yaml.safe_dump(page.config, sort_keys=False, allow_unicode=True),
        skipped=_skipped(views, scenarios),
    )


def _skipped(views: Mapping[str, Mapping[str, Any]], scenarios: list[str]) -> dict[str, str]:
    """Categories whose pixel metrics were skipped, with the reason."""
    return {
        category: cell["pixel_skipped"]
        for name in scenarios
        for cells in views[name]["methods"].values()
        for category, cell in cells.items()
        if cell.get("pixel_skipped")
    }


class _Page:
    """What the template reads: settings, and tables and figures numbered in order of appearance."""

    def __init__(
        self,
        tables: Mapping[str, ReportTable],
        pictures: Mapping[str, Picture],
        config: Mapping[str, Any],
    ) -> None:
        self.tables = tables
        self.pictures = pictures
        self.config = config
        self._counts: Counter[str] = Counter()

    def next(self, kind: str, folded: bool = False) -> str:
        """The next number; what is folded away, and so not printed, has numbers of its own."""
        name = f"{kind} A" if folded else f"{kind} "
        self._counts[name] += 1
        return f"{name}{self._counts[name]}"

    def has(self, *names: str) -> bool:
        """Whether any of these tables was computed."""
        return any(name in self.tables for name in names)

    def setting(self, name: str) -> Markup:
        """A setting by its dotted name, as it was when the results were made."""
        value: Any = self.config
        for key in name.split("."):
            value = value[key]
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return Markup('<span class="s" data-setting="{}">{}</span>').format(name, text)

    def table(self, name: str, folded: bool = False, **only: str) -> Markup:
        """A table as HTML, or nothing where there is none of that name.

        Args:
            name: See ``all_tables``.
            folded: Whether it is folded away.
            only: A column and the value that the rows must have in it.
        """
        table = self.tables.get(name)
        for column, value in only.items():
            if table is not None:
                table = table.where(column, value)
        if table is None or not table.rows:
            return Markup("")
        number = self.next("Table", folded)
        numeric = [
            any(isinstance(row[index], (Number, Field)) for row in table.rows)
            for index in range(len(table.columns))
        ]
        heads = [
            Markup('<th scope="col"{}>{}</th>').format(_kind(is_number), label(column))
            for column, is_number in zip(table.columns, numeric, strict=True)
        ]
        body = []
        for row in table.rows:
            cells = [_cell(table, index, cell, numeric[index]) for index, cell in enumerate(row)]
            body.append(Markup("<tr>{}</tr>\n").format(Markup("").join(cells)))
        return TABLE.format(
            id=f"table-{number.split()[1]}",
            number=number,
            caption=table.caption,
            kind=" stacked" if sum(numeric) > WIDE_TABLE else "",
            heads=Markup("").join(heads),
            body=Markup("").join(body),
        )

    def figure(self, name: str, folded: bool = False) -> Markup:
        """A figure as HTML, or nothing where there is none of that name."""
        picture = self.pictures.get(name)
        if picture is None:
            return Markup("")
        width, height = picture.size
        return FIGURE.format(
            data=picture.data,
            alt=picture.alt,
            width=width,
            height=height,
            caption=picture.caption,
            kind=" surest" if name.startswith("best_and_worst") else "",
            number=self.next("Figure", folded),
        )

    def names(self, start: str) -> list[str]:
        """Names of all figures that start with ``start``."""
        return [name for name in self.pictures if name.startswith(start)]

    def method_settings(self, methods: list[str]) -> list[tuple[str, dict[str, Markup]]]:
        """Each setting of any of the methods, with the value that each method has for it."""
        paths = {method: _setting_paths(self.config, method) for method in methods}
        names = dict.fromkeys(name for settings in paths.values() for name in settings)
        # a network's own settings come before those that all autoencoders share
        ordered = sorted(names, key=lambda name: "." in name)
        return [
            (
                name,
                {
                    method: self.setting(settings[name])
                    for method, settings in paths.items()
                    if name in settings
                },
            )
            for name in ordered
        ]


def _setting_paths(config: Mapping[str, Any], method: str) -> dict[str, str]:
    """Names of a method's settings, each with its dotted name in the configuration."""
    architecture = architecture_of(method)
    if architecture is None:
        return {name: f"{method}.{name}" for name in _dotted(config.get(method, {}))}
    options, section = config["autoencoder"], f"autoencoder.networks.{architecture}"
    network = options["networks"][architecture]
    paths = {name: f"{section}.{name}" for name in network if name != "training"}
    for shared in ("loss", "training", "scoring"):  # all autoencoders have these
        paths |= {
            f"{shared}.{name}": f"autoencoder.{shared}.{name}"
            for name in options[shared]
            if name not in BOOKKEEPING
        }
    return paths | {
        f"training.{name}": f"{section}.training.{name}"
        for name, value in network["training"].items()
        if value is not None and name not in BOOKKEEPING
    }


def _dotted(settings: Mapping[str, Any], start: str = "") -> list[str]:
    """Dotted names of all settings of a section."""
    names = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            names += _dotted(value, f"{start}{name}.")
        else:
            names.append(f"{start}{name}")
    return names


TABLE = Markup("""<figure class="table{kind}">
<figcaption id="{id}"><b>{number}.</b> {caption}</figcaption>
<div class="scroll" role="region" aria-labelledby="{id}" tabindex="0"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}</tbody></table></div>
</figure>
""")
FIGURE = Markup("""<figure class="picture{kind}">
<img src="{data}" alt="{alt}" width="{width}" height="{height}">
<figcaption><b>{number}.</b> {caption}</figcaption>
</figure>
""")


def _kind(is_number: bool) -> Markup:
    return Markup(' class="number"') if is_number else Markup("")


def _cell(table: ReportTable, index: int, cell: Cell, is_number: bool) -> Markup:
    """One cell as HTML; the first of a row heads it."""
    content: Markup | str
    if isinstance(cell, Number):
        content = findings.shown(cell)
    elif isinstance(cell, Field) and str(cell) != "-":
        content, is_number = findings.span(cell.of, cell.name), True
    else:
        content = table.words(index, cell)
    if index == 0:
        return Markup('<th scope="row">{}</th>').format(content)
    return Markup("<td{}>{}</td>").format(_kind(is_number), content)
