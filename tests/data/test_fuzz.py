"""Damaged files: whatever the bytes are, the readers give pixels or a DataError, soon, in little memory.

The short form runs with the other tests. Another number of seconds, and another seed:

    STUDY_FUZZ_SECONDS=600 STUDY_FUZZ_SEED=1 python -m pytest tests/data/test_fuzz.py
"""

import io
import os
import resource
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from nbhelpers.data.images import fingerprint, read_image
from nbhelpers.data.masks import interpret_mask
from nbhelpers.data.reading import Reading
from nbhelpers.errors import DataError

SECONDS = float(os.environ.get("STUDY_FUZZ_SECONDS", 8))
SEED = int(os.environ.get("STUDY_FUZZ_SEED", 0))
SLOWEST = 10.0  # seconds of processor time that one file may take
MEMORY = 2**31  # bytes by which the process may grow
EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
READINGS = (
    Reading(),
    Reading(full_scale=1),
    Reading(full_scale=4095, background=(0, 0, 255), inverted_masks=True),
)


def seeds() -> list[bytes]:
    """Small whole files of every format and mode."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (24, 31), np.uint8)
    colour = rng.integers(0, 256, (24, 31, 3), np.uint8)
    label = Image.fromarray((grey > 200).astype(np.uint8) * np.uint8(2))
    painted = Image.fromarray(grey).convert("P")
    images = {
        "PNG": [
            Image.fromarray(grey),
            Image.fromarray(colour),
            Image.fromarray(np.dstack([colour, grey])),
            Image.fromarray(np.dstack([grey, grey])),
            Image.fromarray(grey.astype(np.uint16) * 200),
            Image.fromarray(grey).convert("1"),
            painted,
            label,
        ],
        "JPEG": [Image.fromarray(grey), Image.fromarray(colour).convert("CMYK")],
        "TIFF": [
            Image.fromarray(grey),
            Image.fromarray(colour),
            Image.fromarray(grey / np.float32(255)),
            Image.fromarray(grey.astype(np.uint16) * 16),
            Image.fromarray(grey.astype(np.int32)),
            Image.fromarray(grey).convert("1"),
            painted,
            Image.fromarray(np.dstack([colour, grey])),
        ],
        "BMP": [Image.fromarray(grey), Image.fromarray(colour), painted],
        "WEBP": [Image.fromarray(colour), Image.fromarray(np.dstack([colour, grey]))],
    }
    tags = Image.Exif()
    tags[0x0112] = 6
    files = []

    def save(image: Image.Image, kind: str, **options) -> None:
        stream = io.BytesIO()
        image.save(stream, format=kind, **options)
        files.append(stream.getvalue())

    for kind, members in images.items():
        for image in members:
            save(image, kind)
            if kind != "BMP":
                save(image, kind, exif=tags)
    save(Image.fromarray(colour), "JPEG", progressive=True)
    save(Image.fromarray(colour), "WEBP", lossless=True)
    save(painted, "PNG", transparency=3)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        image = images["TIFF"][5] if compression == "group4" else images["TIFF"][1]
        save(image, "TIFF", compression=compression)
    sheets = [Image.fromarray(grey), Image.fromarray(colour)]
    save(sheets[0], "TIFF", save_all=True, append_images=sheets[1:])
    deep = rng.integers(0, 65536, (24, 31, 4), np.uint16)
    for suffix in (".png", ".tif"):
        files += [cv2.imencode(suffix, deep[:, :, :n])[1].tobytes() for n in (3, 4)]
    return files


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file with some damage, most of it in the first bytes, where the headers are."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        size = max(len(data), 1)
        at = int(rng.integers(0, min(size, 80) if rng.random() < 0.6 else size))
        match int(rng.integers(6)):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                order, width = rng.choice(["<", ">"]), rng.choice(["B", "H", "I"])
                value = int(rng.choice(EXTREME)) & (1 << 8 * struct.calcsize(width)) - 1
                packed = struct.pack(order + width, value)
                data[at : at + len(packed)] = packed
            case 2:
                del data[at:]
            case 3:
                del data[at : at + int(rng.integers(1, 40))]
            case 4:
                data[at:at] = rng.bytes(int(rng.integers(1, 40)))
            case 5:
                other = int(rng.integers(0, size))
                data[at : at + 16] = data[other : other + 16]
    return checked(bytes(data)) if rng.random() < 0.7 else bytes(data)


def checked(data: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have, so that damage passes the first gate."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


def grown() -> int:
    """The largest memory that this process has taken so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_pixels_or_a_data_error(tmp_path):
    files, rng = seeds(), np.random.default_rng(SEED)
    path, before, until = tmp_path / "a.png", grown(), time.monotonic() + SECONDS
    read = refused = 0
    for whole in files:  # the undamaged ones are read
        path.write_bytes(whole)
        read_image(path, Reading(full_scale=255)), interpret_mask(path), fingerprint(path)
    while time.monotonic() < until:
        data = mutated(files[int(rng.integers(len(files)))], rng)
        path.write_bytes(data)
        reading = READINGS[int(rng.integers(len(READINGS)))]
        for reader in (read_image, lambda path, reading: interpret_mask(path)[0]):
            started = time.process_time()
            try:
                pixels = reader(path, reading)
                read += 1
                assert pixels.dtype == np.uint8 and pixels.ndim in (2, 3)
            except DataError as error:
                refused += 1
                assert str(path) in str(error)
            except Exception as error:
                raise AssertionError(f"found {error!r} for the file {data.hex()}") from error
            taken = time.process_time() - started
            assert taken < SLOWEST, f"{taken:.1f} s for the file {data.hex()}"
        assert grown() - before < MEMORY, f"{grown() - before} bytes at the file {data.hex()}"
    print(f"{read} read, {refused} refused, {(grown() - before) / 2**20:.0f} MB more")
    assert read > 10 and refused > 10
