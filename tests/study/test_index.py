"""The index of files: hashes of bytes and pixels, and no file is read twice without need."""

import cv2
import numpy as np

from nbhelpers.data.layout import Sample
from nbhelpers.files import hash_file
from nbhelpers.study import index
from nbhelpers.study.index import index_files


def test_a_file_is_read_again_only_after_it_changed(tmp_path, monkeypatch):
    image, mask, stored = tmp_path / "a.png", tmp_path / "mask.png", tmp_path / "index.json"
    cv2.imwrite(str(image), np.full((4, 4, 3), 9, np.uint8))
    cv2.imwrite(str(mask), np.full((4, 4), 255, np.uint8))
    samples = [Sample("a.png", image, mask, "nut", "cut")]
    read = []
    monkeypatch.setattr(index, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    first = index_files(samples, tmp_path, stored)
    assert read == ["a.png", "mask.png"] and list(first) == ["a.png", "mask.png"]
    assert first["a.png"].content == hash_file(image) and first["a.png"].pixels
    assert first["mask.png"].pixels == ""
    assert index_files(samples, tmp_path, stored) == first and len(read) == 2
    # packed in another way: other bytes, the same pixels
    cv2.imwrite(str(image), np.full((4, 4, 3), 9, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    second = index_files(samples, tmp_path, stored)
    assert read == ["a.png", "mask.png", "a.png"]
    assert second["a.png"].content != first["a.png"].content
    assert second["a.png"].pixels == first["a.png"].pixels
