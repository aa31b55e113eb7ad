"""The figure of a search for training settings: how the best came down, and what each setting had
to do with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nbhelpers.figures.style import panels

SETTINGS = {
    "learning_rate": "log",
    "weight_decay": "log",
    "optimizer": "choice",
    "batch_size": "choice",
}
COLOR, BEST_COLOR = "#3b7ea1", "#d1495b"


def plot_search(table: pd.DataFrame, importance: Mapping[str, float]) -> Figure:
    """Held-out error of each trial in their order and by each setting; importance of the settings,
    if it is known.

    Args:
        table: What ``search`` gave; trials that diverged have no point.
        importance: What ``importance`` gave; empty for too few trials.
    """
    figure, axes = panels(
        2 + len(SETTINGS) if importance else 1 + len(SETTINGS), width=2.9, height=2.5
    )
    ordered = table.sort_values("trial")
    axes[0].scatter(ordered.trial, ordered.held_out_mse, s=18, color=COLOR)
    axes[0].step(
        ordered.trial,
        ordered.held_out_mse.cummin(),
        where="post",
        color=BEST_COLOR,
        label="best so far",
    )
    axes[0].set(xlabel="trial", ylabel="held-out error")
    axes[0].legend(fontsize=7)
    for axis, (name, kind) in zip(axes[1:], SETTINGS.items(), strict=False):
        _draw_setting(axis, table, name, kind)
    if importance:
        names = list(importance)
        axes[-1].barh(range(len(names)), list(importance.values()), color=COLOR)
        axes[-1].set_yticks(
            range(len(names)), [name.replace("_", " ") for name in names], fontsize=7
        )
        axes[-1].invert_yaxis()
        axes[-1].set(xlabel="importance", xlim=(0, 1))
    return figure


def _draw_setting(axis: Axes, table: pd.DataFrame, name: str, kind: str) -> None:
    values, labels = table[name], None
    if kind == "choice":
        labels = sorted(values.unique())
        values = values.map({label: place for place, label in enumerate(labels)})
    axis.scatter(values, table.held_out_mse, s=18, color=COLOR)
    best = int(np.nanargmin(table.held_out_mse))
    axis.scatter(
        values.iloc[best],
        table.held_out_mse.iloc[best],
        s=40,
        color=BEST_COLOR,
        marker="D",
        label="best",
    )
    axis.set_xlabel(name.replace("_", " "))
    if labels is None:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(
            LogLocator(10, subs=(1,) if values.max() > 100 * values.min() else (1, 3))
        )
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelsize=7)
    else:
        axis.set_xticks(range(len(labels)), [str(label) for label in labels])
        axis.set_xlim(-0.5, len(labels) - 0.5)
