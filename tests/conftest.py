"""Fixtures that several test files share."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from nbhelpers.config import WORKSPACE_VARIABLE
from nbhelpers.data.layout import Sample
from nbhelpers.models.backbones import Backbone


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The temporary folder below which this session's data and outputs lie."""
    return Path(os.environ[WORKSPACE_VARIABLE])


@pytest.fixture(scope="session")
def backbone():
    """The packaged network with two shallow layers of 24 and 40 channels, 16 x 16 cells at 64 px."""
    return Backbone("tf_efficientnet_lite0", ["blocks.1", "blocks.2"])


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Noisy grey images, eight good ones for training; two good and two with a bright square for
    testing.
    """
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    made = {"train": [], "test": []}
    for part, defect_type, count in (
        ("train", "good", 8),
        ("test", "good", 2),
        ("test", "spot", 2),
    ):
        for i in range(count):
            image = draw.normal(110, 12, (80, 72, 3)).clip(0, 255).astype(np.uint8)
            mask = np.zeros((80, 72), np.uint8)
            if defect_type == "spot":
                image[20:44, 12:36] = 250
                mask[20:44, 12:36] = 255
            path, mask_path = (
                root / f"{part}_{defect_type}_{i}.png",
                root / f"{defect_type}_{i}_mask.png",
            )
            cv2.imwrite(str(path), image)
            cv2.imwrite(str(mask_path), mask)
            truth = mask_path if defect_type == "spot" else None
            made[part].append(
                Sample(f"c/{part}/{defect_type}/{i}.png", path, truth, "c", defect_type)
            )
    return made
