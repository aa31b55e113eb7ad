"""Figures of autoencoders: what is drawn is what was handed in, on one scale, with one threshold."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)

from nbhelpers.data.images import write_png  # noqa: E402
from nbhelpers.data.layout import Sample  # noqa: E402
from nbhelpers.errors import ModelError  # noqa: E402
from nbhelpers.figures import reconstructions as plots  # noqa: E402
from nbhelpers.figures.images import shared_limits  # noqa: E402
from nbhelpers.figures.style import METHOD_COLORS  # noqa: E402
from nbhelpers.predictions import Predictions  # noqa: E402

SIZE = 16


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def nuts(tmp_path):
    """A good image and two with a defect at (rows 0-7, columns 8-15), with maps of levels 1, 2, 3
    and a hot square.
    """
    samples, maps, masks = (
        [],
        np.zeros((3, SIZE, SIZE), np.float32),
        np.zeros((3, SIZE, SIZE), np.uint8),
    )
    for i, kind in enumerate(("good", "crack", "hole")):
        path, mask = tmp_path / f"{i}.png", None
        write_png(path, np.full((2 * SIZE, 2 * SIZE, 3), 60 * i, np.uint8))
        maps[i] = i + 1
        if kind != "good":
            masks[i, :8, 8:], maps[i, :8, 8:] = 1, 10 * i
            mask = tmp_path / f"{i}_mask.png"
            write_png(mask, 255 * masks[i].repeat(2, 0).repeat(2, 1))
        samples.append(Sample(f"nut/test/{kind}/{i}.png", path, mask, "nut", kind))
    part = Predictions(
        maps.max(axis=(1, 2)),
        maps,
        masks,
        np.ones(3, bool),
        np.array([0, 1, 1]),
        ("good", "crack", "hole"),
        tuple(s.id for s in samples),
    )
    return samples, part


def grid(figure, rows, columns):
    """Axes of a grid figure by row; its colour bars come after them."""
    return np.array(figure.axes[: rows * columns]).reshape(rows, columns)


def curve(axis, name):
    return next(line for line in axis.lines if line.get_label() == name)


# -- training
# ---------------------------------------------------------------------------------------


def test_history_draws_each_curve_and_marks_the_lowest_held_out_loss():
    history = [
        {
            "epoch": i + 1,
            "train_loss": 8.0 / (i + 1),
            "held_out_loss": loss,
            "learning_rate": 0.001 * i,
            "gradient_norm": 2.0 + i,
            "gradient_norm_clipped": 1.0,
        }
        for i, loss in enumerate((9.0, 1.25, 4.0, 1.5))
    ]
    losses, rate, norms = plots.plot_history(history).axes
    assert curve(losses, "held out").get_xydata().tolist() == [[1, 9], [2, 1.25], [3, 4], [4, 1.5]]
    assert curve(losses, "training").get_ydata().tolist() == [8.0, 4.0, pytest.approx(8 / 3), 2.0]
    assert curve(losses, "best: epoch 2, 1.25").get_xydata().tolist() == [[2, 1.25]]
    assert rate.lines[0].get_ydata().tolist() == [0.0, 0.001, 0.002, 0.003]
    assert curve(norms, "as computed").get_ydata().tolist() == [2, 3, 4, 5]
    assert curve(norms, "as applied").get_ydata().tolist() == [1, 1, 1, 1]
    assert (losses.get_yscale(), rate.get_yscale(), norms.get_yscale()) == (
        "log",
        "linear",
        "linear",
    )


def test_history_without_some_keys_leaves_gaps_and_panels_out():
    history = [
        {"epoch": 1, "train_loss": 3.0},
        {"epoch": 2, "train_loss": 2.0, "held_out_loss": float("nan")},
        {"epoch": 3, "train_loss": 2.5, "held_out_loss": 2.0},
    ]
    (losses,) = plots.plot_history(history).axes
    assert losses.get_ylabel() == "loss" and losses.get_yscale() == "linear"
    assert curve(losses, "held out").get_xdata().tolist() == [3]
    (losses,) = plots.plot_history([{"epoch": 1, "train_loss": 3.0}]).axes
    assert [line.get_label() for line in losses.lines] == ["training"]


# -- images
# -----------------------------------------------------------------------------------------


def test_reconstructions_stand_below_their_images_on_the_given_scale(nuts):
    samples, part = nuts
    images = np.stack([np.full((SIZE, SIZE, 3), 10 + i, np.uint8) for i in range(2)])
    order = [samples[2], samples[0]]  # not the order of the predictions
    figure = plots.plot_reconstructions(order, images, images + 100, part, (1.0, 20.0))
    axes = grid(figure, 3, 2)
    assert [axis.images[0].get_array()[0, 0, 0] for axis in axes.ravel()[:4]] == [10, 11, 110, 111]
    for axis, i in zip(axes[2], (2, 0), strict=True):
        assert np.array_equal(axis.images[0].get_array(), part.anomaly_maps[i])
    assert {axis.images[0].get_clim() for axis in axes[2]} == {(1.0, 20.0)}
    assert [axis.get_title() for axis in axes[2]] == ["20", "1"]
    assert [axis.get_title() for axis in axes[0]] == ["hole", "good"]
    assert [len(axis.collections) for axis in axes[0]] == [1, 0]  # the outline of the defect
    assert len(figure.axes) == 7 and [axis.get_ylabel() for axis in axes[:, 0]] == [
        "image",
        "reconstruction",
        "anomaly map",
    ]


def test_reconstructions_of_other_samples_are_refused(nuts):
    samples, part = nuts
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="shorter|longer"):
        plots.plot_reconstructions(samples, images, images, part, (0.0, 1.0))


def test_each_head_has_a_row_and_a_scale_of_its_own(nuts):
    samples, part = nuts
    other = Predictions(
        part.image_scores / 100,
        part.anomaly_maps / 100,
        part.masks,
        part.pixel_valid,
        part.labels,
        part.defect_types,
        part.ids,
    )
    figure = plots.plot_heads(samples[:2], {"pixel_l2": part, "ssim": other})
    axes = grid(figure, 3, 2)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["image", "pixel L2", "SSIM"]
    for line, predictions in zip(axes[1:], (part, other), strict=True):
        # the third image is not shown, yet the scale is that of all
        assert {axis.images[0].get_clim() for axis in line} == {shared_limits(predictions)}
        assert [axis.get_title() for axis in line] == [
            f"{score:.3g}" for score in predictions.image_scores[:2]
        ]
    assert len(figure.axes) == 6 + 2


def test_masks_come_from_one_threshold_and_a_good_image_has_none(nuts):
    samples, part = nuts
    figure = plots.plot_triplets(samples, part, 10.0, (0.0, 20.0), 1)
    axes = grid(figure, 3, 3)
    for axis, truth in zip(axes[2], part.masks, strict=True):
        assert np.array_equal(
            np.asarray(axis.images[0].get_array())[..., 0], 255 * truth
        )  # 10 is at the threshold
    assert [axis.get_title() for axis in axes[2]] == ["0.0%", "25.0%", "25.0%"]
    assert [len(axis.collections) for axis in axes[2]] == [0, 1, 1]
    assert {axis.images[0].get_clim() for axis in axes[1]} == {(0.0, 20.0)}
    higher = grid(plots.plot_triplets(samples, part, 10.1, (0.0, 20.0), 1), 3, 3)
    assert [axis.get_title() for axis in higher[2]] == ["0.0%", "0.0%", "25.0%"]
    size = int(part.masks[1].sum())
    for min_area, title in ((size, "25.0%"), (size + 1, "0.0%")):
        shown = grid(plots.plot_triplets(samples, part, 10.0, (0.0, 20.0), min_area), 3, 3)
        assert shown[2, 1].get_title() == title


# -- attention
# --------------------------------------------------------------------------------------


def test_attention_by_hand(nuts):
    samples, _ = nuts
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    weights = np.zeros((2, 2, 16, 16))  # two heads, 4 x 4 patches
    weights[:, 0, :, 6] = 1.0  # the first looks at patch 6 (row 1, column 2) from everywhere
    weights[0, 1], weights[1, 1] = (
        np.eye(16),
        1 / 16,
    )  # the second looks at itself in one image, evenly in the other
    axes = grid(plots.plot_attention(samples[:2], images, weights), 3, 2)
    received = np.full((4, 4), 0.5)  # both images: a half is spread evenly
    received[1, 2] = 8.5
    # the good image's query is its middle (row 2, column 2), the other's the middle of its defect
    # (row 0, column 2)
    itself = np.zeros((4, 4))
    itself[2, 2] = itself[1, 2] = 8
    for axis, looks, corner in zip(
        axes[2], (itself, received), ((7.5, 7.5), (7.5, -0.5)), strict=True
    ):
        assert np.asarray(axis.images[0].get_array()) == pytest.approx(looks)
        (frame,) = axis.patches
        assert frame.get_xy() == corner and frame.get_width() == 4
    for axis in axes[1]:
        assert np.asarray(axis.images[0].get_array()) == pytest.approx(received)
        assert axis.images[0].get_extent() == [-0.5, 15.5, 15.5, -0.5]
    assert {axis.images[0].get_clim() for axis in axes[2]} == {(0.0, 8.5)}


def test_the_query_lies_on_a_bent_defect_and_not_in_its_hollow():
    ring = np.zeros((40, 40), np.uint8)
    ring[4:36, 4:36] = 1
    ring[8:32, 8:32] = 0
    row, column = plots._middle(ring, 10)
    assert ring[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].any()
    assert plots._middle(np.zeros((40, 40), np.uint8), 10) == (5, 5)


def test_attention_with_other_tokens_is_refused(nuts):
    samples, _ = nuts
    with pytest.raises(ModelError, match="square grid of P patches"):
        plots.plot_attention(
            samples[:1], np.zeros((1, SIZE, SIZE, 3), np.uint8), np.ones((1, 2, 17, 17))
        )


# -- heads
# ------------------------------------------------------------------------------------------


def head_table():
    rows = [
        ("ae_cnn", category, head, 0.1 * h + 0.3 * c + 0.3, 0.9, 0.5)
        for c, category in enumerate(("nut", "mat"))
        for h, head in enumerate(("feature", "ssim"))
    ]
    rows += [("padim", category, "own", 0.8, 0.95, 0.7) for category in ("nut", "mat")]
    return pd.DataFrame(
        rows, columns=["method", "category", "head", "image_auroc", "pixel_auroc", "aupro"]
    )


def test_heads_are_dots_and_other_methods_lines():
    figure = plots.plot_head_scores(head_table())
    axes = np.array(figure.axes).reshape(3, 2)
    assert [axis.get_title() for axis in axes[0]] == ["nut", "mat"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["image AUROC", "pixel AUROC", "AUPRO 0.3"]
    line, dots = axes[0, 1].lines
    assert line.get_color() == METHOD_COLORS["padim"] and set(line.get_ydata()) == {0.8}
    assert dots.get_color() == METHOD_COLORS["ae_cnn"]
    assert dots.get_xydata().tolist() == [[0, pytest.approx(0.6)], [1, pytest.approx(0.7)]]
    assert [text.get_text() for text in axes[-1, 0].get_xticklabels()] == ["feature", "SSIM"]
    assert axes[0, 0].get_ylim() == pytest.approx((0.27, 1.03)) and axes[0, 0].get_xlim() == (
        -0.6,
        1.6,
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["PaDiM", "CNN AE"]


def test_several_autoencoders_stand_side_by_side_and_missing_masks_leave_rows_out():
    table = head_table()
    table = pd.concat([table, table[table.method == "ae_cnn"].assign(method="ae_vit")])
    table[["pixel_auroc", "aupro"]] = np.nan
    figure = plots.plot_head_scores(table)
    assert [axis.get_ylabel() for axis in figure.axes] == ["image AUROC", ""]
    places = {
        line.get_color(): line.get_xdata()[0]
        for line in figure.axes[0].lines
        if line.get_linestyle() == "None"
    }
    assert places == {
        METHOD_COLORS["ae_cnn"]: pytest.approx(-0.06),
        METHOD_COLORS["ae_vit"]: pytest.approx(0.06),
    }
