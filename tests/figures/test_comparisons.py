"""Comparing figures: each mark stands where its number is, intervals have the stored ends, scales
are shared.
"""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)

from nbhelpers.data.images import write_png  # noqa: E402
from nbhelpers.data.layout import Sample  # noqa: E402
from nbhelpers.evaluation.bootstrap import stated  # noqa: E402
from nbhelpers.figures import comparisons as comparison_plots
from nbhelpers.figures import surest as best_and_worst  # noqa: E402
from nbhelpers.figures.scores import plot_metric_bars  # noqa: E402
from nbhelpers.figures.style import DOMAIN_COLORS, METHOD_COLORS
from nbhelpers.predictions import Predictions  # noqa: E402
from nbhelpers.results.numbers import Results  # noqa: E402
from nbhelpers.results.table import MACRO, PROMISE, RECALIBRATED, TRANSFER, as_table, plain, to_rows  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def bars(axis):
    """Marks of the error bars that an axis holds: colour to x, y and the ends of their horizontal
    intervals.
    """
    marks = []
    for container in axis.containers:
        line, _, (*segments,) = container.lines
        marks.append(
            (
                line.get_color(),
                line.get_xdata(),
                line.get_ydata(),
                [s.get_segments() for s in segments],
            )
        )
    return marks


def test_image_against_pixel_has_a_cross_for_each_method_and_category(results):
    figure = comparison_plots.plot_image_against_pixel(results)
    axes = {axis.get_title(): axis for axis in figure.axes}
    assert list(axes) == [
        "clean",
        "no adaptation",
        "threshold only",
        "full adaptation",
        "global",
        "global one threshold",
    ]
    crosses = bars(axes["no adaptation"])
    assert len(crosses) == 6
    x, y = (
        results.find("no_adaptation", "padim", "zipper", metric)
        for metric in ("image_auroc", "aupro")
    )
    ((_, _, _, (across, upward)),) = [
        cross
        for cross in crosses
        if cross[0] == METHOD_COLORS["padim"] and (cross[1][0], cross[2][0]) == (x.value, y.value)
    ]
    assert across[0][:, 0] == pytest.approx([x.ci_low, x.ci_high])
    assert upward[0][:, 1] == pytest.approx([y.ci_low, y.ci_high])


def test_scenario_lines_follow_the_order_of_the_story(results):
    figure = comparison_plots.plot_scenario_lines(results, ["image_auroc", "aupro"])
    assert len(figure.axes) == 2 * 4 and figure.axes[3].get_title() == "macro"
    line = next(
        line for line in figure.axes[3].lines if line.get_color() == METHOD_COLORS["patchcore"]
    )
    expected = [
        results.find(name, "patchcore", MACRO, "image_auroc").value
        for name in comparison_plots.SHIFT_PATH
    ]
    assert line.get_xdata().tolist() == [0, 1, 2, 3] and line.get_ydata().tolist() == expected
    ticks = [text.get_text().replace("\n", " ") for text in figure.axes[-1].get_xticklabels()]
    assert ticks == ["clean", "no adaptation", "threshold only", "full adaptation"]


def test_a_scenario_that_a_method_lacks_is_a_gap(tidy):
    kept = ~((tidy.method == "padim") & (tidy.scenario == "no_adaptation"))
    figure = comparison_plots.plot_scenario_lines(Results(tidy[kept]), ["image_auroc"])
    line = next(line for line in figure.axes[0].lines if line.get_color() == METHOD_COLORS["padim"])
    assert line.get_xdata().tolist() == [0, 2, 3]


def test_heatmap_prints_the_values_on_one_scale(results):
    figure = comparison_plots.plot_heatmaps(results, "image_auroc", (0.5, 1.0))
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert {axis.images[0].get_clim() for axis in panels} == {(0.5, 1.0)}
    texts = [text.get_text() for text in panels[1].texts]
    expected = [
        results.find("no_adaptation", method, category, "image_auroc").value
        for method in results.methods
        for category in (*results.categories, MACRO)
    ]
    assert texts == [f"{value:.2f}" for value in expected]


def test_differences_have_their_intervals_and_a_line_at_zero(results):
    figure = comparison_plots.plot_differences(results, "image_auroc")
    macro = figure.axes[3]
    assert macro.get_title() == "macro" and [*macro.lines[0].get_xdata()] == [0, 0]
    rows = {color: (x, segments) for color, x, _, segments in bars(macro)}
    x, (segments,) = rows[METHOD_COLORS["padim"]]
    assert x[:3].tolist() == pytest.approx([-0.25, 0.0, 0.18])
    assert segments[0][:, 0] == pytest.approx([-0.29, -0.21])
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[0] == "what the shift costs" and len(names) == 6


def test_transfer_matrix_has_thresholds_as_rows_and_what_is_tested_as_columns(results):
    alarms, misses = comparison_plots.plot_threshold_transfer(results, "global").axes
    assert (
        alarms.get_title() == "PatchCore: false alarms"
        and misses.get_title() == "PatchCore: misses"
    )
    names = [text.get_text() for text in alarms.get_xticklabels()]
    assert (
        names
        == [text.get_text() for text in alarms.get_yticklabels()]
        == ["carpet", "hazelnut", "zipper"]
    )
    for axis, measure in ((alarms, "fpr"), (misses, "fnr")):
        shown = np.array([float(text.get_text()) for text in axis.texts]).reshape(3, 3)
        for row, column in np.ndindex(3, 3):
            key = ("global", "patchcore", names[column], measure)
            stored = results.find(*key, threshold_from=names[row])
            assert shown[row, column] == pytest.approx(stored.value, abs=0.0051)
    assert {axis.images[0].get_clim() for axis in (alarms, misses)} == {(0.0, 1.0)}


def test_transfer_between_domains_stands_beside_each_other_by_category(results):
    figure = comparison_plots.plot_threshold_transfer(results, "transfer")
    columns = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert columns == [
        f"{c}\n{d}" for c in ("carpet", "hazelnut", "zipper") for d in ("clean", "shift")
    ]
    stored = results.find(
        "transfer", "patchcore", "carpet", "fpr", threshold_from="clean", tested_on="shift"
    )
    assert figure.axes[0].texts[1].get_text() == f"{stored.value:.2f}"


def test_promised_and_realised_rates_in_both_worlds(results):
    figure = comparison_plots.plot_promised_and_realised(results)
    assert len(figure.axes) == 6
    worlds = {color: (x, y, segments) for color, x, y, segments in bars(figure.axes[0])}
    x, y, (segments,) = worlds[DOMAIN_COLORS["shift"]]
    assert x == pytest.approx([0.054, 0.104]) and y == pytest.approx(
        [0.35, 0.4]
    )  # a step aside from 0.05 and 0.1
    assert segments[0][:, 1] == pytest.approx([0.31, 0.39])


def test_recalibration_starts_at_the_old_threshold(tidy):
    names = ["scenario", "method", "category", "metric", "detail", "detail_value"]
    by_name = Results(tidy.sort_values(names, kind="stable"))
    axis = comparison_plots.plot_recalibration(by_name).axes[0]
    curves = [container.lines[0].get_xdata() for container in axis.containers]
    assert curves and all(
        (np.diff(sizes) > 0).all() for sizes in curves
    )  # 5 before 10, though not by name
    (_, x, y, _), *_ = bars(axis)
    assert x.tolist() == [0, 5, 10, 24] and y.tolist() == [0.4, 0.4, 0.1, 0.1]
    assert 0.1 in {line.get_ydata()[0] for line in axis.lines}  # the promise


def test_rules_show_macro_averages_and_leave_refused_ones_empty(tidy):
    refused = (
        (tidy.metric == "balanced_accuracy")
        & (tidy.detail_value == "mad")
        & (tidy.scenario == "clean")
        & (tidy.method == "patchcore")
    )
    results = Results(tidy[~refused])
    first = comparison_plots.plot_rules(results).axes[0]
    values = first.images[0].get_array()
    rules = [text.get_text() for text in first.get_yticklabels()]
    row = values[rules.index("mad")]
    stored = results.find("no_adaptation", "patchcore", MACRO, "balanced_accuracy", rule="mad")
    assert np.ma.is_masked(row[0]) and row[1] == stored.value


@pytest.mark.parametrize(
    ("draw", "detail", "panels"),
    [
        (lambda own: comparison_plots.plot_threshold_transfer(own, "transfer"), TRANSFER, 2 * 2),
        (comparison_plots.plot_promised_and_realised, PROMISE, 2 * 3),
        (comparison_plots.plot_recalibration, RECALIBRATED, 3),
        (comparison_plots.plot_rules, "rule", 2),
    ],
)
def test_rows_of_one_family_alone_are_drawn(tidy, draw, detail, panels):
    """As the notebooks draw them: no row says which methods were evaluated."""
    axes = draw(Results(tidy[tidy.detail == detail])).axes
    assert len(axes) == panels
    assert all(axis.get_title() and (axis.images or axis.containers) for axis in axes)


def test_a_third_method_is_drawn_beside_the_others(three):
    results = Results(three)
    (axis, *_) = comparison_plots.plot_differences(results, "image_auroc").axes
    heights = {color: y[0] for color, _, y, _ in bars(axis)}
    assert [heights[METHOD_COLORS[name]] for name in ("patchcore", "padim", "ae_cnn")] == [
        -0.2,
        0.0,
        0.2,
    ]
    heat = comparison_plots.plot_heatmaps(results, "image_auroc", (0.5, 1.0)).axes[0]
    assert [text.get_text() for text in heat.get_yticklabels()] == ["PatchCore", "PaDiM", "CNN AE"]


def test_metric_bars_stand_in_the_order_in_which_methods_are_told(three):
    rows = plain(three)[plain(three).scenario == "clean"]
    rows = rows[rows.method.isin(["patchcore", "padim", "ae_cnn"])]
    figure = plot_metric_bars(rows.sort_values("method", kind="stable"), ["aupro"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "PatchCore",
        "PaDiM",
        "CNN AE",
    ]
    first = Results(three).find("clean", "patchcore", "carpet", "aupro").value
    assert figure.axes[0].patches[0].get_height() == first


def test_an_unknown_method_has_a_colour(tidy):
    names = {"padim": "newcomer"}
    columns = {"method": names, "against_method": names}
    renamed = tidy.replace(columns)
    figure = comparison_plots.plot_scenario_lines(Results(renamed), ["image_auroc"])
    colors = {line.get_color() for line in figure.axes[0].lines}
    assert METHOD_COLORS["patchcore"] in colors and len(colors) == 2


def test_a_table_of_one_scenario_still_gives_figures():
    rows = to_rows("clean", "patchcore", "nut", 42, {"image_auroc": stated(0.9, 20)})
    results = Results(as_table(rows))
    (axis,) = [
        a
        for a in comparison_plots.plot_scenario_lines(results, ["image_auroc"]).axes
        if a.get_title() == "nut"
    ]
    assert axis.lines[0].get_ydata().tolist() == [0.9]


@pytest.fixture
def parts(tmp_path):
    """Six images with scores 1 to 6: good 1, 2, 5 and defect 3, 4, 6; with a threshold of 3.5 two
    are wrong.
    """
    samples, kinds = [], ["good", "good", "crack", "crack", "good", "crack"]
    for i, kind in enumerate(kinds):
        path, mask = tmp_path / f"{i}.png", None
        write_png(path, np.full((16, 16, 3), 40 * i, np.uint8))
        if kind == "crack":
            mask = tmp_path / f"{i}_mask.png"
            write_png(mask, np.pad(np.full((4, 4), 255, np.uint8), 6))
        samples.append(Sample(f"nut/test/{kind}/{i}.png", path, mask, "nut", kind))
    labels = np.array([kind == "crack" for kind in kinds], np.int64)
    scores = np.arange(1, 7, dtype=np.float32)
    maps = scores[:, None, None] * np.ones((1, 16, 16), np.float32)
    return samples, Predictions(
        scores,
        maps,
        np.zeros((6, 16, 16), np.uint8),
        np.ones(6, bool),
        labels,
        tuple(kinds),
        tuple(sample.id for sample in samples),
    )


def test_most_confident_by_hand(parts):
    _, predictions = parts
    right, wrong = best_and_worst.most_confident(predictions, 3.5, 4)
    # margins -2.5, -1.5, -0.5, 0.5, 1.5, 2.5: right are good 0, 1 and defect 3, 5; wrong defect 2
    # and good 4
    assert right.tolist() == [5, 3, 0, 1] and wrong.tolist() == [4, 2]
    right, wrong = best_and_worst.most_confident(predictions, 3.5, 3)
    assert right.tolist() == [5, 3, 0] and wrong.tolist() == [4, 2]
    assert best_and_worst.most_confident(predictions, 3.5, 1)[1].tolist() == [4]


def test_a_score_at_the_threshold_is_a_defect(parts):
    _, predictions = parts
    assert 4 in best_and_worst.most_confident(predictions, 5.0, 3)[1]  # good, score 5


def test_best_and_worst_have_one_scale_a_method(parts):
    samples, predictions = parts
    figure = best_and_worst.plot_best_and_worst(
        samples,
        {"patchcore": predictions, "padim": predictions},
        {"patchcore": 3.5, "padim": 0.5},
        {"patchcore": (3.0, 6.0), "padim": (5.0, 9.0)},
        count=3,
    )
    axes = np.array(figure.axes).reshape(4, 3)
    assert [len(axis.images) for axis in axes[1]] == [1, 1, 0]  # two wrong decisions, no third
    assert (
        axes[1, 0].get_title() == "good\n+1.5" and len(axes[0, 0].collections) == 1
    )  # the mask's outline
    assert axes[2, 0].texts[0].get_text() == "PaDiM\nright"
    # image 5 is grey 200 with a map of 6: three quarters of the hottest colour on one scale, a
    # quarter of the other's
    hottest, warm = (np.array(plt.get_cmap("inferno")(heat)[:3]) for heat in (1.0, 0.25))
    first, second = (axes[row, 0].images[0].get_array()[0, 0] for row in (0, 2))
    assert list(first) == pytest.approx(list(0.25 * 200 / 255 + 0.75 * hottest))
    assert list(second) == pytest.approx(list((1 - 0.1875) * 200 / 255 + 0.1875 * warm))
    assert axes[0, 2].images[0].get_array()[0, 0].tolist() == [
        0,
        0,
        0,
    ]  # image 0, black, its map below the scale


def test_no_wrong_decision_is_said(parts):
    samples, predictions = parts
    defects = predictions.subset(predictions.labels == 1)
    figure = best_and_worst.plot_best_and_worst(
        samples, {"patchcore": defects}, {"patchcore": 0.5}, {"patchcore": (0.0, 5.0)}, count=2
    )
    assert "none wrong" in {text.get_text() for axis in figure.axes for text in axis.texts}
