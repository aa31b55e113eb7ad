"""Hashes of the pixels of tiny's drawn images, of their shifted twins, and of both as a network
sees them.

    python tests/portability/pixels.py > tests/portability/pixels.json

Run it after a change that is meant to move pixels; ``test_pixels.py`` compares every processor with
the list.
"""

import hashlib
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nbhelpers.data.images import read_image, read_mask, resize_image, resize_mask
from nbhelpers.study import open_study


def pixel_hashes(workspace: Path) -> dict[str, str]:
    """One SHA-256 for the images and masks of each category, domain and split; drawn below
    ``workspace``.

    Pixels are hashed and not files, whose compression is the business of the PNG library.
    """
    study = open_study("tiny", {"workspace": str(workspace)})
    size = study.config.data.image_size
    hashes = defaultdict(hashlib.sha256)
    for category in study.categories:
        for domain in ("clean", "shift"):
            for split, samples in study.split(category, domain).items():
                name = f"{category}/{domain}/{split}"
                for sample in samples:
                    image = read_image(sample.image)
                    hashes[name].update(sample.id.encode() + image.tobytes())
                    hashes[f"{name}/{size}px"].update(resize_image(image, size).tobytes())
                    if sample.mask:
                        mask = read_mask(sample.mask, image.shape[:2])
                        hashes[name].update(mask.tobytes())
                        hashes[f"{name}/{size}px"].update(resize_mask(mask, size).tobytes())
    return {name: found.hexdigest() for name, found in sorted(hashes.items())}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(pixel_hashes(Path(folder)), indent=2))
