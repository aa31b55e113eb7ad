"""Figures that show a method step by step: frames stand on their cells, ellipses at their
distances.
"""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Ellipse, Rectangle

from nbhelpers.figures.steps import plot_curves, plot_framed, plot_gaussian, plot_stages


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_frame_covers_the_pixels_of_its_cell():
    image = np.zeros((40, 80, 3), np.uint8)
    figure = plot_framed({"one": (image, [(1, 3), (0, 0)])}, grid=(4, 8), around=1)
    whole, zoom = figure.axes
    frames = [patch for patch in whole.patches if isinstance(patch, Rectangle)]
    # cell (1, 3) of 10 x 10 pixels: rows 10 to 19, columns 30 to 39; a pixel reaches half to each side
    assert [frame.get_bbox().bounds for frame in frames] == [
        (29.5, 9.5, 10, 10),
        (-0.5, -0.5, 10, 10),
    ]
    assert zoom.get_xlim() == (19.5, 49.5) and zoom.get_ylim() == (29.5, -0.5)


def test_without_enlargement_there_is_one_row():
    image = np.zeros((8, 8, 3), np.uint8)
    assert len(plot_framed({"a": (image, []), "b": (image, [(0, 0)])}, grid=(2, 2)).axes) == 2


def test_every_map_has_a_scale_of_its_own_unless_one_is_given():
    stages = {"image": np.zeros((8, 8, 3), np.uint8), "low": np.eye(2), "high": 5 * np.eye(2)}
    own = [axis.images[0].get_clim() for axis in plot_stages(stages).axes[1:3]]
    shared = [axis.images[0].get_clim() for axis in plot_stages(stages, (0, 9)).axes[1:3]]
    assert own == [(0, 1), (0, 5)] and shared == [(0, 9), (0, 9)]


def test_curves_count_from_one():
    axis = plot_curves({"a": np.array([3.0, 2.0]), "b": np.array([1.0])}, "n", "value").axes[0]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1, 2], [1]]
    assert (
        plot_curves({"a": np.array([3.0, 2.0])}, "n", "v", log=True).axes[0].get_yscale() == "log"
    )


def test_ellipses_reach_as_far_as_their_mahalanobis_distance():
    # variance 4 along (1, 1) and 1 across it
    turned = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    covariance = turned @ np.diag([4.0, 1.0]) @ turned.T
    figure = plot_gaussian(np.zeros((5, 2)), np.zeros(2), covariance, np.ones(2))
    ellipses = [patch for patch in figure.axes[0].patches if isinstance(patch, Ellipse)]
    assert [ellipse.width for ellipse in ellipses] == pytest.approx([4, 8, 12])
    assert [ellipse.height for ellipse in ellipses] == pytest.approx([2, 4, 6])
    assert all(ellipse.angle % 180 == pytest.approx(45) for ellipse in ellipses)
