"""Many variants of one study in one workspace: no file of one is replaced by another."""

import shutil

import pytest

from nbhelpers.files import hash_file
from nbhelpers.report import build
from nbhelpers.study import open_study

SMALL = {
    "methods": ["patchcore"],
    "autoencoder.architectures": [],
    "scenarios": ["clean", "no_adaptation"],
    "data.categories": ["carpet"],
    "data.image_size": 64,
    "data.synthetic": {"size": 64, "train_good": 8, "test_good": 3, "per_defect": 1},
    "evaluation.bootstrap_draws": 100,
    "evaluation.conformal_folds": 2,
}


def files(workspace):
    """Every file of the workspace but the empty ones of the locks: its hash and its time."""
    return {
        path.relative_to(workspace).as_posix(): (hash_file(path), path.stat().st_mtime_ns)
        for path in workspace.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.slow
def test_severities_parts_of_the_shift_and_data_roots_replace_nothing_of_each_other(tmp_path):
    workspace, others = tmp_path / "workspace", tmp_path / "others"
    variants = {
        "moderate (the profile's own)": {},
        "shift.severity=severe": {"shift.severity": "severe"},
        "shift.only=[rotation]": {"shift.only": ["rotation"]},
        "shift.only=[blur, noise]": {"shift.only": ["blur", "noise"]},
        "another data root": {"data.source": "folder", "data.root": str(others / "images")},
        "a root of the same name": {"data.source": "folder", "data.root": str(tmp_path / "images")},
    }

    def finish(changes):
        study = open_study("tiny", {**SMALL, "workspace": str(workspace), **changes})
        build.complete(study)
        build.write_tables(study, build.stored_results(study))
        return study

    before: dict[str, tuple[str, int]] = {}
    for name, changes in variants.items():
        study = finish(changes)
        after = files(workspace)
        replaced = [path for path in before if after.get(path) != before[path]]
        new = after.keys() - before.keys()
        folder = study.config.output_dir.relative_to(workspace)
        print(
            f"{name}: {len(before)} files kept, {len(replaced)} replaced, {len(new)} new; {folder}"
        )
        assert replaced == []
        assert any(path.startswith(f"{folder}/results/metrics.csv") for path in new)
        before = after
        if not changes:  # the other roots: one image fewer, so that their numbers may differ
            for root in (others, tmp_path):
                shutil.copytree(study.data_root, root / "images")
            (others / "images" / "carpet" / "train" / "good" / "000.png").unlink()
    for name in ("moderate (the profile's own)", "a root of the same name"):
        finish(variants[name])  # finds its own files again: only tables are written, the same bytes
    after = files(workspace)
    made_again = [path for path in before if after[path][1] != before[path][1]]
    assert not any(path.endswith(".meta.json") for path in made_again)
    assert {path: entry[0] for path, entry in after.items()} == {
        path: entry[0] for path, entry in before.items()
    }
