"""Walking a folder: what is junk by its name, the order of files, and links."""

import pytest

from nbhelpers.data.tree import is_junk, natural_key, walk


def test_files_come_in_natural_order():
    names = ["img_10.png", "img_9.png", "2.png", "a.png", "10.png"]
    assert sorted(names, key=natural_key) == ["2.png", "10.png", "a.png", "img_9.png", "img_10.png"]


@pytest.mark.parametrize(
    ("name", "folder", "junk"),
    [
        (".DS_Store", False, True),
        ("._0.png", False, True),
        ("Thumbs.db", False, True),
        ("~$0.png", False, True),
        ("$RECYCLE.BIN", True, True),
        ("System Volume Information", True, True),
        ("__pycache__", True, True),
        ("@cam.png", False, False),  # a person may call a file so
        ("#12", True, False),
        ("~", False, False),
        ("good", True, False),
        ("macosx", True, False),
    ],
)
def test_junk_by_name(name, folder, junk):
    assert is_junk(name, folder) == junk


def test_the_tree_is_sorted_out(tmp_path):
    for name in ("b/10.png", "b/9.PNG", "a.jpg", "notes.txt", ".hidden/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "b" / "back").symlink_to(tmp_path)
    tree = walk(tmp_path)
    below = [p.relative_to(tmp_path).as_posix() for p in tree.files]
    assert below == ["a.jpg", "b/9.PNG", "b/10.png", "notes.txt", "gone.png"]
    assert tree.repeated == [tmp_path / "b" / "back"] and len(tree.images) == 3
