"""Images of a training: held out, ordered, augmented, kept, batched and corrupted, each by seed and
place alone.
"""

import numpy as np
import pytest
import torch

from nbhelpers.errors import DataError
from nbhelpers.models.autoencoders.training import batches as batches_module
from nbhelpers.models.autoencoders.training.batches import (
    Batches,
    EpochOrder,
    TrainingImages,
    corrupt,
    derived_seed,
    hold_out,
)
from tests.models.autoencoders.training.small_networks import Plain


def test_held_out_images_are_a_seeded_share():
    names = list(range(30))
    kept, held = hold_out(names, 0.1, 1, "held-out")
    assert len(held) == 3 and sorted(kept + held) == names and kept == sorted(kept)
    assert hold_out(names, 0.1, 1, "held-out")[1] == held
    assert len({tuple(hold_out(names, 0.1, seed, "held-out")[1]) for seed in range(8)}) > 4
    assert [len(part) for part in hold_out([1, 2], 0.01, 0, "held-out")] == [1, 1]
    assert [len(part) for part in hold_out([1, 2], 0.99, 0, "held-out")] == [1, 1]
    with pytest.raises(DataError, match="at least 2 good images"):
        hold_out([1], 0.1, 0, "held-out")


def test_without_groups_the_draw_is_as_it_always_was():
    for count, share, seed in ((30, 0.1, 1), (64, 0.25, 2), (2, 0.9, 3), (9, 0.99, 4)):
        draw = np.random.default_rng(derived_seed(seed, "held-out"))
        expected = draw.choice(
            count, min(max(1, round(share * count)), count - 1), replace=False
        ).tolist()
        for groups in (None, list(range(count))):
            assert hold_out(range(count), share, seed, "held-out", groups)[1] == sorted(expected)


def test_groups_are_held_out_whole():
    names, groups = (
        list(range(30)),
        [i // 3 if i < 21 else "large" for i in range(30)],
    )  # seven of three, one of nine
    drawn = set()
    for seed in range(20):
        kept, held = hold_out(
            names, 0.15, seed, "held-out", groups
        )  # 4 or 5 images: two groups, or the large one
        assert sorted(kept + held) == names and not {groups[i] for i in kept} & {
            groups[i] for i in held
        }
        large = {groups[i] for i in held} == {"large"}
        assert len(held) == 9 if large else len(held) in (6, 12)
        drawn.add(tuple(held))
    assert len(drawn) > 10 and hold_out(names, 0.15, 19, "held-out", groups)[1] == held
    for share in (0.01, 0.99):
        kept, held = hold_out([1, 2, 3], share, 0, "held-out", ["a", "b", "a"])
        assert {tuple(kept), tuple(held)} == {(1, 3), (2,)}
    with pytest.raises(
        DataError, match="at least 2 groups, one of them to be held out, found 3 images of 1"
    ):
        hold_out([1, 2, 3], 0.1, 0, "held-out", ["a"] * 3)


def test_only_good_training_images_are_opened(samples, run, monkeypatch):
    opened, read = set(), batches_module.read_image
    monkeypatch.setattr(
        batches_module, "read_image", lambda path, reading: opened.add(path) or read(path, reading)
    )
    _, result = run("run")
    assert opened == {sample.image for sample in samples["train"]}
    assert (result.stats["n_images"], result.stats["n_held_out"]) == (7, 1)
    groups = ["a", "b"] * 4
    _, halves = run("halves", groups=groups)
    assert (halves.stats["n_images"], halves.stats["n_held_out"]) == (4, 4)
    with pytest.raises(DataError, match="good images only"):
        run("spoilt", images=[*samples["train"], samples["test"][-1]])


def test_order_and_augmentation_depend_on_epoch_and_place_alone(samples):
    order = EpochOrder(7, seed=1)
    first = list(order)
    assert sorted(index for _, index in first) == list(range(7)) and list(order) == first
    order.set_epoch(1)
    assert [index for _, index in order] != [index for _, index in first] and {
        epoch for epoch, _ in order
    } == {1}
    images = TrainingImages(samples["train"], 32, "industrial", 1.0, seed=5)
    seen = [images[epoch, 2][0] for epoch in range(12)]
    assert images[11, 2][0].equal(seen[11]) and images[4, 2][0].equal(
        seen[4]
    )  # whatever came in between
    assert len({tuple(image.flatten().tolist()) for image in seen}) > 3


def test_kept_images_are_those_of_the_files(samples, monkeypatch):
    kept = TrainingImages(samples["train"], 32)
    monkeypatch.setattr(batches_module, "CACHE_BYTES", 0)
    read = TrainingImages(samples["train"], 32)
    assert read.kept is None and all(kept[0, i][0].equal(read[0, i][0]) for i in range(8))
    image, name = kept[0, 0]
    assert (
        image.shape == (3, 32, 32)
        and name == samples["train"][0].id
        and -1 <= image.min() <= image.max() <= 1
    )


@pytest.mark.parametrize(
    ("size", "accumulate", "used", "shares"),
    [
        (8, 1, 8, [1]),
        (4, 2, 8, [1, 1]),
        (3, 2, 8, [1, 1, 2]),
        (3, 3, 8, [9 / 8, 9 / 8, 6 / 8]),
        (7, 1, 7, [1]),
    ],
)
def test_a_lone_last_image_sits_out_and_steps_weigh_images_alike(
    samples, size, accumulate, used, shares
):
    images = TrainingImages(samples["train"], 32)
    batches = Batches(images, images, size, accumulate, seed=0, loader={})
    assert batches.used == used
    assert [batches.share(i) for i in range(len(shares))] == pytest.approx(shares)
    assert sum(len(names) for _, names in batches.training_loader(0)) == used


def test_corruption_by_hand():
    images = torch.linspace(-1, 1, 200 * 3 * 32 * 32).reshape(200, 3, 32, 32)
    assert corrupt(images, "none", 1) is images
    noisy = corrupt(images, "noise", 1)
    assert noisy.min() >= -1 and noisy.max() <= 1 and noisy.equal(corrupt(images, "noise", 1))
    middle = images.abs() < 0.3  # where nothing is clipped
    assert float((noisy - images)[middle].std()) == pytest.approx(0.2, rel=0.01)
    masked = corrupt(images, "mask", 1)
    changed = (masked != images).any(dim=1)
    cells = changed.reshape(200, 8, 4, 8, 4).permute(0, 1, 3, 2, 4).flatten(3)
    assert (cells.all(3) | ~cells.any(3)).all()  # whole cells of 4 x 4 pixels
    assert float(changed.float().mean()) == pytest.approx(0.25, abs=0.02)
    colors = masked.reshape(200, 3, 8, 4, 8, 4).permute(0, 2, 4, 1, 3, 5).flatten(4)[cells.all(3)]
    assert (colors == colors[..., :1]).all() and colors.min() < -0.99 and colors.max() > 0.99
    assert not masked.equal(corrupt(images, "mask", 2))


def test_targets_stay_clean_and_held_out_images_are_corrupted_alike_in_every_epoch(samples, run):
    seen = {True: [], False: []}

    class Watched(Plain):
        def loss(self, inputs, targets, criterion):
            seen[self.training].append((inputs.clone(), targets.clone()))
            return super().loss(inputs, targets, criterion)

    run("run", Watched(), corruption="noise", batch_size=8)
    clean = {
        tuple(TrainingImages(samples["train"], 32)[0, i][0].flatten().tolist()) for i in range(8)
    }
    for inputs, targets in seen[True] + seen[False]:
        assert {tuple(target.flatten().tolist()) for target in targets} <= clean
        assert float((inputs - targets).std()) == pytest.approx(0.2, rel=0.1)
    assert len(seen[False]) == 2 and seen[False][0][0].equal(seen[False][1][0])
    assert len(seen[True]) == 2 and not seen[True][0][0].equal(seen[True][1][0])
