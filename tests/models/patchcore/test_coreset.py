"""The coreset is exact: the picks of the plain loop, bit for bit, also where floats are nasty."""

from functools import partial

import pytest
import torch
from tqdm import tqdm

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.models.patchcore import coreset, reference
from nbhelpers.models.patchcore.coreset import coreset_size, covering_radius, greedy_coreset


@pytest.fixture(autouse=True)
def one_thread():
    """Many small operations in the plain loop: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int, dim: int, seed: int, n_blobs: int = 20, spread: float = 0.2) -> torch.Tensor:
    g = rng(seed)
    centres = torch.randn(n_blobs, dim, generator=g)
    return centres[torch.randint(n_blobs, (n,), generator=g)] + spread * torch.randn(
        n, dim, generator=g
    )


@pytest.fixture(
    params=[(512, 16, 8192, 1), (7, 3, 50, 3)], ids=["as shipped", "tiny pools and blocks"]
)
def knobs(request, monkeypatch):
    """Pools, bursts, blocks and threads are speed settings: no value of them may change a pick."""
    *sizes, n_threads = request.param
    for name, value in zip(("POOL_SIZE", "BURST", "BLOCK_ROWS"), sizes, strict=True):
        monkeypatch.setattr(coreset, name, value)
    torch.set_num_threads(n_threads)
    yield
    assert torch.get_num_threads() == n_threads


def hard_cases() -> dict[str, tuple[torch.Tensor, int]]:
    g = rng(5)
    normal = torch.randn(400, 24, generator=g)
    wide = blobs(900, 40, 1)
    outliers = blobs(700, 16, 2)
    outliers[[3, 200, 650]] *= torch.tensor([1e3, 1e6, 1e8])[:, None]
    scales = torch.randn(500, 12, generator=g) * 10 ** torch.linspace(-9, 9, 500)[:, None]
    near_ties = torch.ones(600, 8) + torch.randint(0, 3, (600, 8), generator=g) * 2.0**-23
    return {
        "exact copies of every row": (normal[:60].repeat(8, 1), 100),
        "ties everywhere: one-hot rows": (torch.eye(300), 120),
        "ties: integer grid": (torch.cartesian_prod(*[torch.arange(6.0)] * 3), 100),
        "fewer points than the pool": (normal[:40], 39),
        "all points picked": (normal[:150], 150),
        "more picks than distinct points": (normal[:10].repeat(20, 1), 60),
        "all zero": (torch.zeros(300, 16), 20),
        "offset of a million": (wide + 1e6, 200),
        "offset in one column only": (wide + 1e7 * (torch.arange(40) == 11), 200),
        "outliers of 1e3 to 1e8": (outliers, 150),
        "magnitudes from 1e-9 to 1e9": (scales, 150),
        "squares that underflow": (normal * 1e-22, 50),
        "differences of one ulp": (near_ties, 200),
        "one dimension": (torch.randn(500, 1, generator=g), 120),
        "few rows of many dimensions": (torch.randn(120, 1536, generator=g), 60),
        "one point": (normal[:1], 1),
    }


@pytest.mark.parametrize("case", hard_cases())
def test_hard_case_has_the_picks_of_the_plain_loop(case, knobs):
    features, n_select = hard_cases()[case]
    start = len(features) // 3
    picks = greedy_coreset(features, n_select, start=start, memory_budget_mb=0.1, progress=False)
    assert picks.tolist() == reference.greedy_coreset(features, n_select, start)


@pytest.mark.parametrize("seed", range(6))
def test_random_sets_have_the_picks_of_the_plain_loop(seed, knobs):
    features = blobs(1500, 4 + 31 * seed, seed, spread=0.05 * (1 + seed))
    picks = greedy_coreset(features, 300, start=seed, memory_budget_mb=0.05, progress=False)
    assert picks.tolist() == reference.greedy_coreset(features, 300, seed)


def test_worked_by_hand():
    line = torch.tensor([[0.0], [1.0], [4.0], [10.0]])
    # from 0: farthest is 10; then 4 (4 from 0) before 1; then 1
    assert greedy_coreset(line, 4, start=0, progress=False).tolist() == [0, 3, 2, 1]
    assert reference.greedy_coreset(line, 4, start=0) == [0, 3, 2, 1]
    assert covering_radius(line, torch.tensor([0, 3])) == 4.0
    assert reference.covering_radius(line, [0, 3]) == 4.0


def test_same_picks_as_anomalib_without_projection():
    from anomalib.models.components import KCenterGreedy

    features = blobs(3000, 64, 3)
    peer = KCenterGreedy(features, sampling_ratio=0.1)
    peer.model.fit = lambda embedding: None
    peer.model.transform = lambda embedding: embedding
    state = torch.get_rng_state()
    torch.manual_seed(11)
    theirs = peer.select_coreset_idxs()
    torch.set_rng_state(state)
    assert greedy_coreset(features, 300, start=theirs[0], progress=False).tolist() == theirs


def test_prefix_and_blocks_do_not_matter():
    features = blobs(2000, 30, 4)
    long = greedy_coreset(features, 400, start=0, progress=False)
    assert greedy_coreset(features, 150, start=0, progress=False).equal(long[:150])
    assert greedy_coreset(features, 400, start=0, memory_budget_mb=0.01, progress=False).equal(long)


def test_start_is_drawn_from_the_generator_alone():
    features = blobs(500, 8, 6)
    state = torch.get_rng_state()
    first = greedy_coreset(features, 20, generator=rng(3), progress=False)
    assert torch.get_rng_state().equal(state)
    assert greedy_coreset(features, 20, generator=rng(3), progress=False).equal(first)
    starts = {
        int(greedy_coreset(features, 1, generator=rng(s), progress=False)[0]) for s in range(8)
    }
    assert len(starts) > 4


def test_input_and_matmul_precision_are_left_alone():
    features = blobs(800, 8, 7)
    before = features.clone()
    torch.set_float32_matmul_precision("medium")
    try:
        picks = greedy_coreset(features, 50, start=0, progress=False)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert features.equal(before)
    assert picks.tolist() == reference.greedy_coreset(features, 50, 0)


def test_non_contiguous_features():
    features = blobs(500, 20, 8)
    view = features.T.contiguous().T
    assert greedy_coreset(view, 40, start=0, progress=False).tolist() == reference.greedy_coreset(
        features, 40, 0
    )


def test_covering_radius_is_the_next_pick_s_distance():
    features = blobs(600, 10, 9)
    picks = greedy_coreset(features, 31, start=0, progress=False)
    to_next = torch.linalg.norm(features[picks[:30]] - features[picks[30]], dim=1).min()
    assert covering_radius(features, picks[:30]) == pytest.approx(float(to_next), rel=1e-6)
    plain = reference.covering_radius(features, picks[:30].tolist())
    assert covering_radius(features, picks[:30]) == pytest.approx(plain, rel=1e-6)


def test_progress_bar_shows_and_is_silenced(capfd, monkeypatch):
    features = blobs(300, 4, 10)
    monkeypatch.setattr(
        coreset, "tqdm", partial(tqdm, disable=False)
    )  # whatever TQDM_DISABLE was at import
    greedy_coreset(features, 60, start=0)
    assert "60/60" in capfd.readouterr().err
    greedy_coreset(features, 60, start=0, progress=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30])
def test_unusable_numbers_are_refused_with_their_row(bad):
    features = blobs(300, 4, 11)
    features[123, 2] = bad
    with pytest.raises(DataError, match="row 123"):
        greedy_coreset(features, 10, start=0, progress=False)


@pytest.mark.parametrize(
    "features", [torch.zeros(5), torch.zeros(0, 3), torch.zeros(5, 3).double()]
)
def test_another_shape_or_type_is_refused(features):
    with pytest.raises(DataError, match="float32"):
        greedy_coreset(features, 1, start=0, progress=False)


@pytest.mark.parametrize(("n_select", "start"), [(0, 0), (11, 0), (3, 10), (3, -1), (3, None)])
def test_arguments_out_of_range_are_refused(n_select, start):
    with pytest.raises(ConfigError, match="expected"):
        greedy_coreset(torch.zeros(10, 2), n_select, start=start, progress=False)


def test_coreset_size():
    assert coreset_size(131712, 0.05) == 6585
    assert coreset_size(100, 0.29) == 29
    assert coreset_size(7, 1) == 7
    for ratio in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ConfigError, match=r"\(0, 1\]"):
            coreset_size(100, ratio)
    with pytest.raises(ConfigError, match="0.1 or more"):
        coreset_size(10, 0.05)
