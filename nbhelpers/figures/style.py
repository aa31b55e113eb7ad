"""The look of every figure: one colour for each thing, sizes, and how a figure is saved."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from nbhelpers.files import replacing
from nbhelpers.methods import METHODS

BLUE, RED = "#3b7ea1", "#d1495b"
GOOD_COLOR, DEFECT_COLOR = BLUE, RED
#: Of a wrong decision.
WRONG_COLOR = "#c1121f"
DOMAIN_COLORS = {"clean": BLUE, "shift": "#e07b39"}
METHOD_COLORS = {name: row.color for name, row in METHODS.items()}
#: For methods without a colour of their own; see ``method_colors``.
SPARE_COLORS = (
    "#8d5a97",
    "#c97b12",
    "#4c956c",
    "#5f6caf",
    "#8a3b12",
    "#2a9d8f",
    "#6b705c",
    "#b5179e",
)
DPI = 150


def use_style() -> None:
    """Set the look of all figures; the set-up cell of each notebook calls this once."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    # white margins are trimmed, and a folder that is called "$a$" keeps that name on its axis
    plt.rcParams.update(
        {
            "figure.dpi": 72,
            "savefig.dpi": DPI,
            "savefig.bbox": "tight",
            "figure.autolayout": False,
            "text.parse_math": False,
        }
    )


def save_figure(figure: Figure, path: Path, pdf: bool = False) -> Path:
    """Write a figure as PNG, and also as PDF if asked; the same figure gives the same bytes.

    Args:
        figure: The figure; its layout is fixed by this call.
        path: The PNG's path; the PDF stands beside it. Both are written to temporary names and
            renamed.
        pdf: Whether to write the PDF too.

    Returns:
        The PNG's path.

    Raises:
        ResourceError: A file cannot be written (permission, disk full).
    """
    # laid out and measured once, for all files and for the notebook
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    box = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches=box, metadata={"Software": None})
    if pdf:
        with replacing(path.with_suffix(".pdf")) as temporary:
            figure.savefig(temporary, dpi=DPI, bbox_inches=box, metadata={"CreationDate": None})
    return path


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """One colour per method: its own, or a spare one that its name picks.

    Two unknown methods of one call never share a colour as long as there are spare ones.
    """
    colors: dict[str, str] = {}
    for method in sorted(set(methods)):
        start = zlib.crc32(method.encode()) % len(SPARE_COLORS)
        spare = SPARE_COLORS[start:] + SPARE_COLORS[:start]
        free = [color for color in spare if color not in colors.values()]
        colors[method] = METHOD_COLORS.get(method, (free or spare)[0])
    return colors
