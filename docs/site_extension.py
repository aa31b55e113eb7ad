"""What the site adds to Sphinx: pages that are made from the code, and formulas without a script.

The page ``docs/configuration.md`` holds the line ``<!-- settings -->``. While the site is built, it
is replaced by all settings, see ``settings_reference``; and a line of each page of the API reference
by its modules, see ``api_pages``.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import api_pages
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from settings_reference import settings_reference
from sphinx.util import logging

MARKER = "<!-- settings -->"
logger = logging.getLogger(__name__)


def _insert(app: Any, docname: str, source: list[str]) -> None:
    """Put what is made from the code into the page that is being read."""
    if docname == "docs/configuration":
        source[0] = source[0].replace(MARKER, settings_reference())
    elif match := api_pages.MARKER.search(source[0]):
        source[0] = source[0].replace(match[0], api_pages.sections(Path(docname).name))


def _formula(self: Any, node: nodes.Element) -> None:
    """Write a formula of a line as MathML."""
    self.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _displayed_formula(self: Any, node: nodes.Element) -> None:
    """Write a formula on a line of its own as MathML."""
    self.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, as_block: bool) -> str:
    """MathML of a formula in LaTeX; its number, if it has one, stands behind it."""
    latex = re.sub(r"\\tag\{(.*?)\}", r"\\qquad (\1)", node.astext())
    latex = re.sub(r"\\dots(?![a-z])", r"\\ldots", latex)
    try:
        return tex2mathml(latex, as_block=as_block)
    except MathError as error:
        logger.warning(
            "expected LaTeX that docutils knows, found %s: %s", latex, error, location=node
        )
        return f"<code>{html.escape(latex)}</code>"


def setup(app: Any) -> dict[str, Any]:
    """Tell Sphinx."""
    app.connect("source-read", _insert)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_formula, None), block_renderers=(_displayed_formula, None)
    )
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
