"""Fetch MVTec AD: through Kaggle, or as the official archive; keep the categories of the study.

The data are CC BY-NC-SA 4.0 (Bergmann et al., CVPR 2019): fetched by each user, never part of the
repository.
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
    """What ``download`` would do, step by step; needs neither network nor credentials."""
    what = {
        "kaggle": f"ask Kaggle for the dataset {KAGGLE_DATASET} (needs an API token), unpack it",
        "official": "fetch the official archive mvtec_anomaly_detection.tar.xz (4.9 GB), check its hash, unpack it",
    }[source]
    return [
        f"{what} in {root}/.download",
        f"keep {', '.join(categories)}",
        f"move them to {root}",
        "count the images",
    ]


def has_kaggle_token() -> bool:
    """Whether a token is where Kaggle's client looks for one; its value is not read."""
    home = Path(os.environ.get("KAGGLE_CONFIG_DIR", Path.home() / ".kaggle"))
    in_environment = "KAGGLE_API_TOKEN" in os.environ or {"KAGGLE_USERNAME", "KAGGLE_KEY"} <= set(
        os.environ
    )
    return in_environment or any(
        (home / name).is_file() for name in ("kaggle.json", "access_token")
    )


def _fetch_kaggle(folder: Path) -> None:
    if not has_kaggle_token():
        raise ResourceError(
            "no Kaggle token found: create one at kaggle.com (Settings, API), then set KAGGLE_USERNAME and KAGGLE_KEY "
            "or put kaggle.json into the folder .kaggle of your home; or use --source official"
        )
    from kaggle.api.kaggle_api_extended import (
        KaggleApi,
    )  # here, since it looks for credentials on import

    api = KaggleApi()
    api.authenticate()
    api.dataset_download_files(KAGGLE_DATASET, path=str(folder), unzip=True, quiet=False)


def _fetch_official(folder: Path) -> None:
    from anomalib.data.datamodules.image.mvtecad import DOWNLOAD_INFO
    from anomalib.data.utils.download import download_and_extract

    download_and_extract(folder, DOWNLOAD_INFO)


def download(source: str, root: Path, categories: Sequence[str] = CATEGORIES) -> None:
    """Fetch the categories that ``root`` lacks; complete ones appear at once, by a rename.

    Raises:
        ResourceError: no token, no network, no space.
        DataError: the archive lacks a category.
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
            found = sorted(
                path for path in folder.rglob(name) if (path / "train" / "good").is_dir()
            )
            if not found:
                raise DataError(
                    f"{folder}: expected the category '{name}' in what was fetched, found none"
                )
            found[0].rename(root / name)
    except OSError as error:  # urllib's and requests' network errors are OSErrors too
        named = cannot_write(root, error)
        if isinstance(named, ResourceError):
            raise named from error
        raise ResourceError(
            f"could not fetch MVTec AD from source '{source}' ({error}); check the network, try the other source "
            f"({', '.join(s for s in SOURCES if s != source)}), or unpack the archive into {root} by hand"
        ) from error
    remove(folder)


def verify(root: Path, categories: Sequence[str] = CATEGORIES) -> dict[str, tuple[int, int, int]]:
    """Count train good, test good and test defects; every folder kind and mask is checked on the
    way.

    Raises:
        DataError: a folder or mask is missing, or a category of the study has other counts than the
            official one.
    """
    counts = {name: count_parts(scan_category(root, name)) for name in categories}
    for name, found in counts.items():
        if name in OFFICIAL_COUNTS and found != OFFICIAL_COUNTS[name]:
            raise DataError(
                f"{root / name}: expected {'/'.join(map(str, OFFICIAL_COUNTS[name]))} images (train good / test good "
                f"/ test defects) as in MVTec AD, found {'/'.join(map(str, found))}; fetch this category again"
            )
    return counts


def free_gigabytes(root: Path) -> float:
    """Free space where ``root`` will lie, GB."""
    return (
        shutil.disk_usage(next(p for p in (root, *root.resolve().parents) if p.exists())).free / 1e9
    )
