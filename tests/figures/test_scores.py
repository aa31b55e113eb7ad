"""Figures: built without a display, on fixed scales, with what was asked for on them."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)

from nbhelpers.data.images import write_png  # noqa: E402
from nbhelpers.data.layout import Sample  # noqa: E402
from nbhelpers.evaluation.metrics import decide  # noqa: E402
from nbhelpers.evaluation.pixel_masks import binary_mask  # noqa: E402
from nbhelpers.figures import data as data_plots  # noqa: E402
from nbhelpers.figures import images as gallery
from nbhelpers.figures import scores as plots
from nbhelpers.figures import style
from nbhelpers.predictions import Predictions  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def nuts(tmp_path):
    """Four samples (two cracks) with masks on disk, and predictions with known scores."""
    samples = []
    for i, kind in enumerate(["good", "good", "crack", "crack"]):
        path, mask = tmp_path / f"{i}.png", None
        write_png(path, np.full((32, 32, 3), 40 * i, np.uint8))
        if kind == "crack":
            mask = tmp_path / f"{i}_mask.png"
            write_png(mask, np.pad(np.full((8, 8), 255, np.uint8), 12))
        samples.append(Sample(f"nut/test/{kind}/{i}.png", path, mask, "nut", kind))
    maps = np.stack([np.full((16, 16), s, np.float32) for s in (1, 4, 3, 6)])
    masks = np.zeros((4, 16, 16), np.uint8)
    masks[2:, 6:10, 6:10] = 1
    part = Predictions(
        np.array([1, 4, 3, 6], np.float32),
        maps,
        masks,
        np.ones(4, bool),
        np.array([0, 0, 1, 1]),
        ("good", "good", "crack", "crack"),
        tuple(s.id for s in samples),
    )
    return samples, part


def test_hardest_are_nearest_the_wrong_side(nuts):
    samples, part = nuts
    assert [s.id[-5] for s in gallery.hardest(samples, part, 3.5, 2, label=1)] == ["2", "3"]
    assert [s.id[-5] for s in gallery.hardest(samples, part, 3.5, 1, label=0)] == ["1"]


def test_maps_share_one_scale_and_wrong_decisions_are_red(nuts):
    samples, part = nuts
    figure = gallery.plot_anomaly_maps(samples, part, (0.0, 5.0), threshold=3.5)
    images = [axis.images[0] for axis in figure.axes[4:8]]
    assert {image.get_clim() for image in images} == {(0.0, 5.0)}
    titles = [(axis.get_title(), axis.title.get_color()) for axis in figure.axes[4:8]]
    assert titles == [
        ("1.00: good", "black"),
        ("4.00: defect", "#c1121f"),
        ("3.00: good", "#c1121f"),
        ("6.00: defect", "black"),
    ]


def test_the_title_decides_as_the_tables_do(nuts):
    samples, part = nuts
    # above the score 4, but not once it is rounded to the precision of the scores
    threshold = 4.0 + 1e-9
    assert np.float32(threshold) == np.float32(4)
    figure = gallery.plot_anomaly_maps(samples, part, (0.0, 5.0), threshold)
    said = [axis.get_title().split(": ")[1] == "defect" for axis in figure.axes[4:8]]
    assert said == decide(part.image_scores, threshold).tolist() == [False, False, False, True]
    assert not binary_mask(np.full((2, 2), 4, np.float32), threshold, min_area=1).any()


def test_masks_are_outlined_only_where_there_is_one(nuts):
    samples, _ = nuts
    figure = gallery.plot_samples({"nut": samples})
    assert [len(axis.collections) for axis in figure.axes] == [0, 0, 1, 1]


def test_one_of_each_takes_every_type_first():
    samples = [
        Sample(f"n/test/{k}/{i}.png", None, None, "n", k) for k in ("a", "b", "c") for i in range(2)
    ]
    assert [s.defect_type for s in gallery.one_of_each(samples, 5)] == ["a", "b", "c", "a", "b"]
    assert [s.id for s in gallery.spread(samples, 2)] == [samples[0].id, samples[-1].id]


def test_shared_limits_by_hand(nuts):
    _, part = nuts
    low, high = gallery.shared_limits(part)
    assert low == 2.5 and high == 6.0  # median of good pixels 1 and 4; 99.5 % of all


def test_metric_bars_show_value_and_interval():
    table = pd.DataFrame(
        {
            "method": "patchcore",
            "category": ["a", "b"],
            "scenario": "clean",
            "against": "",
            "against_method": "",
            "macro": False,
            "metric": "f1",
            "value": [0.5, 1.0],
            "ci_low": [0.4, 1.0],
            "ci_high": [0.7, 1.0],
        }
    )
    (axis,) = plots.plot_metric_bars(table, ["f1"]).axes
    assert [bar.get_height() for bar in axis.patches] == [0.5, 1.0]
    assert axis.containers[1].lines[2][0].get_segments()[0][:, 1].tolist() == [0.4, 0.7]


def test_roc_dot_lies_at_the_deployed_threshold(nuts):
    _, part = nuts
    roc, pr = plots.plot_roc_pr({"patchcore": {"nut": part}}, {"patchcore": {"nut": 3.5}}).axes
    assert [line.get_xydata().tolist() for line in roc.lines][-1] == [[0.5, 0.5]]  # one of two each
    assert [line.get_xydata().tolist() for line in pr.lines][-1] == [[0.5, 0.5]]


def test_roc_has_a_curve_of_its_own_colour_for_each_method(nuts):
    _, part = nuts
    both = {"patchcore": {"nut": part}, "padim": {"nut": part}}
    roc, pr = plots.plot_roc_pr(both, {name: {"nut": 3.5} for name in both}).axes
    curves = {line.get_label(): line.get_color() for line in roc.lines}
    assert (
        curves["PatchCore"] == style.METHOD_COLORS["patchcore"]
        and curves["PaDiM"] == style.METHOD_COLORS["padim"]
    )
    assert [text.get_text() for text in roc.get_legend().get_texts()] == ["PatchCore", "PaDiM"]


def test_unknown_methods_get_colours_that_do_not_depend_on_order():
    first = style.method_colors(["new", "patchcore", "other", "third"])
    assert first == style.method_colors(["third", "other", "patchcore", "new"])
    assert first["patchcore"] == style.METHOD_COLORS["patchcore"] and len(set(first.values())) == 4
    assert style.method_colors(["new"])["new"] == style.method_colors(["new", "patchcore"])["new"]
    assert not set(style.SPARE_COLORS) & set(style.METHOD_COLORS.values())


def test_confusion_counts(nuts):
    _, part = nuts
    (axis,) = plots.plot_confusions({"nut": part}, {"nut": 3.5}).axes
    assert [text.get_text() for text in axis.texts] == ["1", "1", "1", "1"]


def test_scores_and_curves_mark_the_threshold(nuts):
    _, part = nuts
    for figure in (plots.plot_scores({"nut": part}, 3.5), plots.plot_f1_curve(part, 3.5, "padim")):
        assert any(np.allclose(line.get_xdata(), 3.5) for line in figure.axes[0].lines)


def test_figures_of_data_without_masks_say_so():
    empty = pd.DataFrame(columns=["category", "defect", "area_percent"])
    assert "no masks" in data_plots.plot_defect_areas(empty).axes[0].texts[0].get_text()


def test_saved_figures_have_the_same_bytes(tmp_path):
    counts = pd.DataFrame(
        {
            "category": "nut",
            "split": ["train", "test"],
            "defect": ["good", "crack"],
            "images": [5, 2],
        }
    )
    first = style.save_figure(data_plots.plot_counts(counts), tmp_path / "a" / "f.png").read_bytes()
    assert (
        style.save_figure(data_plots.plot_counts(counts), tmp_path / "a" / "f.png").read_bytes()
        == first
    )
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["f.png"]
    style.save_figure(data_plots.plot_counts(counts), tmp_path / "b" / "f.png", pdf=True)
    pdf = (tmp_path / "b" / "f.pdf").read_bytes()
    style.save_figure(data_plots.plot_counts(counts), tmp_path / "b" / "f.png", pdf=True)
    assert pdf.startswith(b"%PDF") and (tmp_path / "b" / "f.pdf").read_bytes() == pdf
