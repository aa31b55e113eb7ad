"""Downloads MVTec AD, from Kaggle or as the official archive, and keeps the study's categories.

The data have the licence CC BY-NC-SA 4.0 (Bergmann et al., CVPR 2019): each user downloads them, and
they are never part of the repository.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from nbhelpers.data.layout import OFFICIAL_COUNTS, count_parts, scan_category
from nbhelpers.errors import DataError, ResourceError
from nbhelpers.files import cannot_write, remove

KAGGLE_DATASET = "ipythonx/mvtec-ad"
SOURCES = ("kaggle", "official")
CATEGORIES = tuple(OFFICIAL_COUNTS)


def plan(source: str, root: Path, categories: Sequence[str] = CATEGORIES) -> list[str]:
    """The steps that ``download`` would take, in words; needs no network and no credentials."""
    fetching = {
        "kaggle": f"ask Kaggle for the dataset {KAGGLE_DATASET} (needs an API token), unpack it",
        "official": "fetch the official archive mvtec_anomaly_detection.tar.xz (4.9 GB), check its hash, unpack it",
    }[source]
    return [
        f"{fetching} in {root}/.download",
        f"keep {', '.join(categories)}",
        f"move them to {root}",
        "count the images",
    ]


def has_kaggle_token() -> bool:
    """Whether a token is in a place where Kaggle's client looks for one; its value is not read."""
    home = Path(os.environ.get("KAGGLE_CONFIG_DIR", Path.home() / ".kaggle"))
    has_key = "KAGGLE_USERNAME" in os.environ and "KAGGLE_KEY" in os.environ
    has_file = any((home / name).is_file() for name in ("kaggle.json", "access_token"))
    return "KAGGLE_API_TOKEN" in os.environ or has_key or has_file


def _fetch_kaggle(folder: Path) -> None:
    if not has_kaggle_token():
        raise ResourceError(
            "expected a Kaggle token, found none; create one at kaggle.com (Settings, API), then set "
            "KAGGLE_USERNAME and KAGGLE_KEY or put kaggle.json into the folder .kaggle of your home, or use "
            "--source official"
        )
    # imported here, because the import already looks for credentials
    from kaggle.api.kaggle_api_extended import KaggleApi

    api = KaggleApi()
    api.authenticate()
    api.dataset_download_files(KAGGLE_DATASET, path=str(folder), unzip=True, quiet=False)


def _fetch_official(folder: Path) -> None:
    from anomalib.data.datamodules.image.mvtecad import DOWNLOAD_INFO
    from anomalib.data.utils.download import download_and_extract

    download_and_extract(folder, DOWNLOAD_INFO)


def download(source: str, root: Path, categories: Sequence[str] = CATEGORIES) -> None:
    """Download the categories that are missing in ``root``.

    A category appears in ``root`` only when it is complete, by a rename.

    Args:
        source: ``kaggle`` or ``official``.
        root: The folder of categories.
        categories: Names of the categories to have.

    Raises:
        ResourceError: There is no token, no network or no space left.
        DataError: The archive does not hold a category.
    """
    missing = [name for name in categories if not (root / name).is_dir()]
    if not missing:
        return
    folder = root / ".download"
    fetch = {"kaggle": _fetch_kaggle, "official": _fetch_official}[source]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
        for name in missing:
            candidates = sorted(
                path for path in folder.rglob(name) if (path / "train" / "good").is_dir()
            )
            if not candidates:
                raise DataError(
                    f"{folder}: expected the category '{name}' in the downloaded archive, found none; "
                    "choose another category or the other source"
                )
            candidates[0].rename(root / name)
    except OSError as error:  # the network errors of urllib and requests are OSErrors, too
        named = cannot_write(root, error)
        if isinstance(named, ResourceError):
            raise named from error
        raise ResourceError(
            f"could not fetch MVTec AD from source '{source}' ({error}); check the network, try the other source "
            f"({', '.join(s for s in SOURCES if s != source)}), or unpack the archive into {root} by hand"
        ) from error
    remove(folder)


def verify(root: Path, categories: Sequence[str] = CATEGORIES) -> dict[str, tuple[int, int, int]]:
    """Check the folders and masks of each category, and count its images.

    Returns:
        By category, the number of good training, good test and defect test images.

    Raises:
        DataError: A folder or a mask is missing, or the counts of a category of the study are not
            those of the official archive.
    """
    counts = {name: count_parts(scan_category(root, name)) for name in categories}
    for name, count in counts.items():
        if name in OFFICIAL_COUNTS and count != OFFICIAL_COUNTS[name]:
            raise DataError(
                f"{root / name}: expected {'/'.join(map(str, OFFICIAL_COUNTS[name]))} images (train good / test good "
                f"/ test defects) as in MVTec AD, found {'/'.join(map(str, count))}; fetch this category again"
            )
    return counts


def free_gigabytes(root: Path) -> float:
    """Free space in GB on the disk of ``root``, which need not exist yet."""
    existing = next(folder for folder in (root, *root.resolve().parents) if folder.exists())
    return shutil.disk_usage(existing).free / 1e9
