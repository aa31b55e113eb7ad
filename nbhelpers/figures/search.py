"""The figure of a search for training settings: the best error so far, and the error against each
setting.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nbhelpers.figures.panels import panels
from nbhelpers.figures.style import BLUE, RED

#: Settings that are searched, and what their axis is: logarithmic or a list of choices.
SETTINGS = {
    "learning_rate": "log",
    "weight_decay": "log",
    "optimizer": "choice",
    "batch_size": "choice",
}
TRIAL_COLOR, BEST_COLOR = BLUE, RED


def plot_search(table: pd.DataFrame, importance: Mapping[str, float]) -> Figure:
    """Held-out error of the trials: in their order, against each setting, and how much each setting
    matters.

    Args:
        table: What ``search`` gave, one row per trial; a trial that diverged has no point.
        importance: What ``importance`` gave, one share per setting; empty after too few trials,
            and then its panel is left out.
    """
    count = 2 + len(SETTINGS) if importance else 1 + len(SETTINGS)
    figure, axes = panels(count, width=2.9, height=2.5)
    ordered = table.sort_values("trial")
    axes[0].scatter(ordered.trial, ordered.held_out_mse, s=18, color=TRIAL_COLOR)
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
        axes[-1].barh(range(len(names)), list(importance.values()), color=TRIAL_COLOR)
        axes[-1].set_yticks(
            range(len(names)), [name.replace("_", " ") for name in names], fontsize=7
        )
        axes[-1].invert_yaxis()
        axes[-1].set(xlabel="importance", xlim=(0, 1))
    return figure


def _draw_setting(axis: Axes, table: pd.DataFrame, name: str, kind: str) -> None:
    values, choices = table[name], None
    if kind == "choice":
        choices = sorted(values.unique())
        values = values.map({choice: position for position, choice in enumerate(choices)})
    axis.scatter(values, table.held_out_mse, s=18, color=TRIAL_COLOR)
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
    if choices is None:
        axis.set_xscale("log")
        steps = (1,) if values.max() > 100 * values.min() else (1, 3)
        axis.xaxis.set_major_locator(LogLocator(10, subs=steps))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelsize=7)
    else:
        axis.set_xticks(range(len(choices)), [str(choice) for choice in choices])
        axis.set_xlim(-0.5, len(choices) - 0.5)
