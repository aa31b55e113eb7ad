"""Nearest neighbours are those of direct float64 distances, where a plain matrix product would lose
them.
"""

import pytest
import torch

from nbhelpers.errors import DataError
from nbhelpers.models.patchcore.neighbours import Centres, check_features, mean_row
from nbhelpers.models.patchcore.reference import distance_matrix, nearest_neighbour
from nbhelpers.models.threads import map_blocks, single_threaded


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and centres."""
    g = rng(1)
    points, centres = torch.randn(300, 40, generator=g), torch.randn(101, 40, generator=g)
    if name == "offset":
        return points + 3e4, centres + 3e4
    if name == "nearly on a centre":
        return centres.repeat(3, 1) + 1e-5 * points[:101].repeat(3, 1) + 1e3, centres + 1e3
    if name == "outlier among the centres":
        return points, torch.cat([centres, 1e7 * torch.ones(1, 40)])
    if name == "few centres":
        return points, centres[:3]
    return points, centres


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(
    "name", ["plain", "offset", "nearly on a centre", "outlier among the centres", "few centres"]
)
def test_nearest_is_that_of_float64(name, n_threads):
    points, centres = case(name)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        distance, index = Centres(centres, mean_row(centres), memory_budget_mb=0.05).nearest(points)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    true = distance_matrix(points.double(), centres.double())
    torch.testing.assert_close(distance.double(), true.amin(1), rtol=1e-5, atol=0)
    # the index names a centre at that distance
    torch.testing.assert_close(
        true.gather(1, index[:, None])[:, 0], true.amin(1), rtol=1e-6, atol=0
    )


def test_a_plain_matrix_product_would_fail_these_cases():
    """The hard cases are hard: torch.cdist's product form is off by more than 1 %."""
    for name in ("offset", "nearly on a centre"):
        points, centres = case(name)
        true = distance_matrix(points.double(), centres.double()).amin(1)
        product = torch.cdist(points, centres, compute_mode="use_mm_for_euclid_dist").amin(1)
        assert not torch.allclose(product.double(), true, rtol=0.01, atol=0)


def test_copies_give_distance_zero_and_the_lowest_index():
    centres = torch.randn(50, 8, generator=rng(2)).repeat(3, 1)
    distance, index = Centres(centres, mean_row(centres)).nearest(centres[100:])
    assert distance.eq(0).all()
    assert index.tolist() == list(range(50))
    assert nearest_neighbour(centres[100:], centres)[1].tolist() == list(range(50))


def test_the_default_origin_is_the_centres_mean():
    points, centres = case("offset")
    plain, given = Centres(centres), Centres(centres, mean_row(centres))
    assert plain.origin.equal(given.origin)
    assert plain.nearest(points)[0].equal(given.nearest(points)[0])


def test_origin_and_block_size_change_nothing():
    points, centres = case("plain")
    expected = Centres(centres, mean_row(centres)).nearest(points)
    for origin, megabytes in (
        (torch.zeros(40), None),
        (centres[0] + 5, 0.001),
        (mean_row(points), 0.02),
    ):
        distance, index = Centres(centres, origin, megabytes).nearest(points)
        assert distance.equal(expected[0]) and index.equal(expected[1])


def test_one_point_alone_has_the_distance_it_has_among_others():
    points, centres = case("plain")
    asked = Centres(centres, mean_row(centres))
    assert asked.nearest(points[7:8])[0].equal(asked.nearest(points)[0][7:8])


def test_nan_gives_no_distance():
    points, centres = case("plain")
    points[3, 3] = torch.nan
    distance, _ = Centres(centres, mean_row(centres)).nearest(points)
    assert distance[3].isinf() and distance[[0, 1, 2, 4]].isfinite().all()


def test_map_blocks_keeps_order_and_passes_errors_on():
    with single_threaded():
        assert list(map_blocks(lambda x: x * x, range(20), n_threads=4)) == [
            x * x for x in range(20)
        ]
        with pytest.raises(ZeroDivisionError):
            list(map_blocks(lambda x: 1 // x, range(3), n_threads=2))


def test_check_features_names_the_row():
    features = torch.zeros(20_000, 2)
    check_features(features)
    features[9000, 1] = torch.inf
    with pytest.raises(DataError, match="row 9000"):
        check_features(features)
    with pytest.raises(
        DataError, match=r"shape \(N, D\), as float32, found shape \(3, 2\) as torch"
    ):
        check_features(torch.zeros(3, 2).double())
