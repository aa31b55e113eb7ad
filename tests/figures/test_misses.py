"""Figures of the error analysis: what is drawn is what was counted, for one and several methods and
scenarios.
"""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)

from nbhelpers.data.images import write_png  # noqa: E402
from nbhelpers.data.layout import Sample  # noqa: E402
from nbhelpers.figures import misses as error_plots  # noqa: E402
from nbhelpers.figures.style import METHOD_COLORS  # noqa: E402
from nbhelpers.predictions import Predictions  # noqa: E402

METHODS = ("patchcore", "padim")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def rows(groups, scenarios=("clean",), methods=METHODS, categories=("nut", "mat")):
    """Tidy rows: the value says where it belongs, so that a mix-up is seen; intervals of 0.1 to
    both sides.
    """
    table = []
    for s, scenario in enumerate(scenarios):
        for m, method in enumerate(methods):
            for c, category in enumerate(categories):
                for g, (name, group) in enumerate(groups):
                    value = 0.1 * g + 0.3 * m + 0.05 * c + 0.02 * s + 0.1
                    table.append(
                        {
                            "scenario": scenario,
                            "method": method,
                            "category": category,
                            "seed": 42,
                            "metric": "recall",
                            "detail": name,
                            "detail_value": group,
                            "value": value,
                            "ci_low": value - 0.1,
                            "ci_high": value + 0.1,
                            "n_images": 3 + g,
                        }
                    )
    return pd.DataFrame(table)


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_visible()]


def test_recall_bars_stand_at_their_type_method_and_scenario():
    table = rows(
        [("defect_type", "cut"), ("defect_type", "metal_dust"), ("size", "small")],
        ["clean", "no_adaptation"],
    )
    figure = error_plots.plot_recall_by_type(table, ["clean", "no_adaptation"])
    assert titles(figure) == [
        "nut, clean",
        "nut, no adaptation",
        "mat, clean",
        "mat, no adaptation",
    ]
    for axis, (c, s) in zip(figure.axes, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        assert len(axis.patches) == 4  # two types, two methods; size is not a defect type
        for m, method in enumerate(METHODS):
            color = matplotlib.colors.to_rgba(METHOD_COLORS[method])
            bars = [bar for bar in axis.patches if bar.get_facecolor() == color]
            expected = [0.1 * g + 0.3 * m + 0.05 * c + 0.02 * s + 0.1 for g in (0, 1)]
            assert [bar.get_width() for bar in bars] == pytest.approx(expected)
            assert [round(bar.get_y() + bar.get_height() / 2) for bar in bars] == [0, 1]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["cut (3)", "metal_dust (4)"]
    assert not any(text.get_text() for text in figure.axes[1].get_yticklabels())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["PatchCore", "PaDiM"]


def test_intervals_are_drawn_from_low_to_high():
    figure = error_plots.plot_recall_by_type(
        rows([("defect_type", "cut")], methods=["padim"]), ["clean"]
    )
    (segment,) = figure.axes[0].containers[1].lines[2][0].get_segments()
    assert segment[:, 0].tolist() == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize("categories", [1, 3, 4, 7])
def test_one_scenario_puts_categories_side_by_side(categories):
    names = [f"c{i}" for i in range(categories)]
    figure = error_plots.plot_recall_by_type(
        rows([("defect_type", "cut")], categories=names), ["clean"]
    )
    assert titles(figure) == names
    figure.canvas.draw()  # places the panels
    boxes = [axis.get_position() for axis in figure.axes if axis.get_visible()]
    assert len({round(box.x0, 3) for box in boxes}) == min(3, categories)
    assert len({round(box.y0, 3) for box in boxes}) == -(-categories // 3)


def test_bins_stand_in_their_natural_order():
    groups = [
        ("size", "small"),
        ("size", "large"),
        ("size", "medium"),
        ("border", "far"),
        ("border", "near"),
        ("contrast", "all"),
    ]
    figure = error_plots.plot_recall_by_property(rows(groups), "clean")
    labels = [[text.get_text() for text in axis.get_xticklabels()] for axis in figure.axes[:3]]
    assert labels == [
        ["small\n(3)", "medium\n(5)", "large\n(4)"],
        ["near\n(7)", "far\n(6)"],
        ["all\n(8)"],
    ]
    assert titles(figure)[:3] == ["nut, size", "nut, border", "nut, contrast"]
    points = figure.axes[0].containers[0].lines[0].get_ydata()  # patchcore: small, medium, large
    assert points.tolist() == pytest.approx([0.1, 0.3, 0.2])


def test_misses_are_crossed_and_lie_below_the_line():
    table = pd.DataFrame(
        {
            "method": "padim",
            "category": "nut",
            "area_percent": [0.5, 2.0, 3.0, np.nan],
            "margin": [-1.0, 2.0, 0.0, -5.0],
            "detected": [False, True, True, False],
        }
    )
    (axis,) = error_plots.plot_margin_area(table).axes
    detected, missed = (points.get_offsets().tolist() for points in axis.collections)
    assert detected == [[2.0, 2.0], [3.0, 0.0]] and missed == [[0.5, -1.0]]
    assert axis.get_xscale() == "log" and axis.lines[0].get_ydata() == [0, 0]


def test_scores_stand_at_their_type_with_good_first():
    table = pd.DataFrame(
        {
            "method": "padim",
            "category": "nut",
            "defect_type": ["hole", "good", "cut", "good"],
            "label": [1, 0, 1, 0],
            "score": [4.0, 1.0, 3.0, 2.0],
            "threshold": 2.5,
        }
    )
    (axis,) = error_plots.plot_scores_by_type(table).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == [
        "good (2)",
        "cut (1)",
        "hole (1)",
    ]
    assert axis.collections[0].get_offsets().tolist() == [
        [4.0, 2.0],
        [1.0, 0.0],
        [3.0, 1.0],
        [2.0, 0.0],
    ]
    assert axis.lines[0].get_xdata() == [2.5, 2.5]


def test_pictures_of_hard_cases_have_one_scale_a_method_and_say_what_was_decided(tmp_path):
    samples = []
    for i, kind in enumerate(["good", "cut", "cut"]):
        write_png(tmp_path / f"{i}.png", np.full((16, 16, 3), 40 * i, np.uint8))
        samples.append(Sample(f"nut/test/{kind}/{i}.png", tmp_path / f"{i}.png", None, "nut", kind))
    maps, masks = (
        np.arange(3 * 64, dtype=np.float32).reshape(3, 8, 8),
        np.zeros((3, 8, 8), np.uint8),
    )
    predictions, thresholds = {}, {"patchcore": {"nut": 1.5}, "padim": {"nut": 250.0}}
    for method, scale in (("patchcore", 1), ("padim", 100)):
        predictions[method] = {
            "nut": Predictions(
                np.array([1, 2, 3], np.float32) * scale,
                maps * scale,
                masks,
                np.ones(3, bool),
                np.array([0, 1, 1]),
                ("good", "cut", "cut"),
                tuple(s.id for s in samples),
            )
        }
    figure = error_plots.plot_hard_cases(samples[1:], predictions, thresholds)
    grid = np.array(figure.axes).reshape(3, 2)  # pictures, patchcore, padim
    assert [axis.get_title() for axis in grid[0]] == ["nut\ncut"] * 2
    assert [[axis.get_title() for axis in row] for row in grid[1:]] == [
        ["2.00: defect", "3.00: defect"],
        ["200.00: good", "300.00: defect"],
    ]
    assert [axis.title.get_color() for axis in grid[2]] == [error_plots.WRONG_COLOR, "black"]
    limits = [{axis.images[0].get_clim() for axis in row} for row in grid[1:]]
    assert [len(scales) for scales in limits] == [1, 1] and limits[0] != limits[1]
    np.testing.assert_array_equal(grid[2, 1].images[0].get_array(), maps[2] * 100)


def test_nothing_to_show_is_said():
    assert "no defect image" in error_plots.plot_hard_cases([], {}, {}).axes[0].texts[0].get_text()
    none = rows([("defect_type", "cut")])
    assert (
        "no masks" in error_plots.plot_recall_by_property(none, "clean").axes[0].texts[0].get_text()
    )
