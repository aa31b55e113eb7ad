"""The runner on dummy notebooks: what is run, what is not run again, and what a failure or a kill
leaves.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest

from nbhelpers.data.images import write_png
from nbhelpers.data.layout import survey_category
from nbhelpers.errors import ResourceError
from nbhelpers.runner import execute as executor
from nbhelpers.runner import graph
from nbhelpers.runner.graph import Notebook, RunFolder
from nbhelpers.runner.processes import only_run
from nbhelpers.runner.summary import report_errors

pytestmark = pytest.mark.slow  # Snakemake and kernels are started: half a minute in all
HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
"""
TABLE = (
    Notebook("03_shift", per=("category",)),
    Notebook("04_fit", after=("03",), per=("category", "domain")),
)
LONG_TABLE = (Notebook("01_look"), *TABLE, Notebook("07_judge", after=("04",)))
AXES = {"category": ["nut", "rug"], "domain": ["clean"]}


class Dummy:
    """A small study: notebooks that note down, in a file, that they ran."""

    def __init__(self, folder: Path, table=TABLE, axes=AXES):
        self.folder, self.table, self.axes = folder, table, axes
        self.notes, self.notebooks = folder / "notes.txt", folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        for row in table:
            self.write(row.stem, "pass")
        self.run_folder = RunFolder(folder / "outputs" / "dummy")

    def write(self, stem: str, body: str) -> None:
        note = f"open({str(self.notes)!r}, 'a').write(f'{stem} {{category}} {{domain}} {{overrides}}\\n')"
        parameters = "profile, overrides, category, domain = 'tiny', {}, '-', '-'"
        cells = f'# %% tags=["parameters"]\n{parameters}\n\n# %%\n{body}\n\n# %%\n{note}\n'
        (self.notebooks / f"{stem}.py").write_text(HEADER + cells)

    def jobs(self, overrides=None, **inputs):
        parameters = {"profile": "tiny", "overrides": overrides or {}}
        inputs = {"code": "1", "settings": str(overrides), **inputs}
        data = dict.fromkeys(self.axes["category"], "d")
        return graph.build_jobs(self.axes, parameters, inputs, data, self.table, self.notebooks)

    def ran(self) -> list[str]:
        """Give what ran since the last call, in order."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        self.notes.unlink(missing_ok=True)
        return [" ".join(line.split()[:3]) for line in lines]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A dummy study that was run once; the tests that use it leave it up to date."""
    dummy = Dummy(tmp_path_factory.mktemp("with space"))
    assert executor.execute(dummy.jobs({"a.b": [1, True]}), dummy.run_folder) == {}
    dummy.first = dummy.notes.read_text().splitlines()
    dummy.notes.unlink()
    return dummy


def test_every_run_comes_after_those_that_share_its_values(tmp_path):
    after = {job.name: set(job.after) for job in Dummy(tmp_path, LONG_TABLE).jobs()}
    assert after == {
        "01_look": set(),
        "03_shift__nut": set(),
        "03_shift__rug": set(),
        "04_fit__nut__clean": {"03_shift__nut"},
        "04_fit__rug__clean": {"03_shift__rug"},
        "07_judge": {"04_fit__nut__clean", "04_fit__rug__clean"},
    }


def test_parameters_arrive_with_their_types_in_reading_order(done):
    assert done.first == [
        f"{run} {{'a.b': [1, True]}}"
        for run in ("03_shift nut -", "03_shift rug -", "04_fit nut clean", "04_fit rug clean")
    ]
    executed = nbformat.read(done.run_folder.executed("04_fit__rug__clean"), as_version=4)
    assert executed.metadata.kernelspec.name == "python3"


def test_braces_in_names_of_categories_and_folders(tmp_path):
    """Snakemake reads braces as wildcards, papermill formats them."""
    names = ["part {A}", "{category}"]
    axes = {**AXES, "category": names}
    dummy = Dummy(tmp_path / "work {x}", table=TABLE[:1], axes=axes)
    dummy.write("03_shift", "assert category == 'part {A}', '{broken}'")
    errors = executor.execute(dummy.jobs(), dummy.run_folder)
    assert errors == {"03_shift__{category}": "AssertionError: {broken}"}
    assert dummy.ran() == ["03_shift part {A}"]
    states = graph.survey(dummy.jobs(), dummy.run_folder)
    assert {name: state for name, (state, _) in states.items()} == {
        "03_shift__part {A}": "done",
        "03_shift__{category}": "failed",
    }


def test_names_of_jobs_have_files_of_their_own_without_braces(tmp_path):
    folder = RunFolder(tmp_path)
    names = ["a {b}", "a %7Bb%7D", "a %257Bb%257D", "{a} b", "a b"]
    files = [
        getattr(folder, kind)(n) for n in names for kind in ("job", "log", "executed", "failed")
    ]
    assert len(set(files)) == 20 and not any(set(path.name) & set("{}") for path in files)
    assert folder.executed("03_shift__nut").name == "03_shift__nut.ipynb"


def test_a_second_run_runs_nothing_and_says_so(done, capsys):
    assert executor.execute(done.jobs({"a.b": [1, True]}), done.run_folder) == {}
    assert done.ran() == []
    assert "4 up to date, 0 to run" in capsys.readouterr().out


def test_what_makes_a_notebook_stale_is_named_and_asking_writes_nothing(done):
    before = {path: path.read_bytes() for path in done.run_folder.run.rglob("*.json")}
    for jobs, why in (
        (done.jobs({"a.b": [1, True]}, code="2"), "code changed"),
        (done.jobs({"a.b": [1, False]}), "settings changed"),
    ):
        assert graph.survey(jobs, done.run_folder)["03_shift__nut"] == ("stale", why)
    assert {path: path.read_bytes() for path in done.run_folder.run.rglob("*.json")} == before


def test_a_changed_notebook_runs_again_and_no_other(done):
    done.write("04_fit", "x = 1")
    jobs = done.jobs({"a.b": [1, True]})
    states = graph.survey(jobs, done.run_folder)
    assert [states[job.name] for job in jobs] == 2 * [("done", "")] + 2 * [
        ("stale", "notebook changed")
    ]
    assert executor.execute(jobs, done.run_folder) == {}
    assert done.ran() == ["04_fit nut clean", "04_fit rug clean"]


def test_only_and_force_run_the_chosen_ones_and_leave_the_next_stale(done):
    jobs = done.jobs({"a.b": [1, True]})
    assert (
        executor.execute(graph.select(jobs, ["3"]), done.run_folder, jobs_at_once=2, force=True)
        == {}
    )
    assert sorted(done.ran()) == ["03_shift nut -", "03_shift rug -"]
    assert graph.survey(jobs, done.run_folder)["04_fit__nut__clean"] == (
        "stale",
        "03_shift nut is newer",
    )
    # also for a run of 04 alone
    chosen = graph.select(jobs, ["04"])
    assert graph.survey(chosen, done.run_folder)["04_fit__nut__clean"] == (
        "stale",
        "03_shift nut is newer",
    )


def test_what_broke_is_kept_with_its_error_and_the_others_go_on(tmp_path, capsys):
    dummy = Dummy(tmp_path, LONG_TABLE)
    dummy.write("01_look", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    dummy.write("03_shift", "if category == 'nut':\n    raise ValueError('bad nut\\nsecond line')")
    errors = executor.execute(dummy.jobs(), dummy.run_folder)
    assert "died" in errors.pop("01_look").lower()
    assert errors == {
        "03_shift__nut": "ValueError: bad nut second line",
        "04_fit__nut__clean": "not run: it needs 03_shift__nut",
        "07_judge": "not run: it needs 04_fit__nut__clean",
    }
    assert dummy.ran() == ["03_shift rug -", "04_fit rug clean"]
    failed = nbformat.read(dummy.run_folder.failed("03_shift__nut"), as_version=4)
    assert any(
        o.output_type == "error" for c in failed.cells if c.cell_type == "code" for o in c.outputs
    )
    assert "bad nut" in dummy.run_folder.log("03_shift__nut").read_text()
    assert report_errors(errors, dummy.run_folder) == 1
    assert str(dummy.run_folder.failed("03_shift__nut")) in capsys.readouterr().err
    assert graph.survey(dummy.jobs(), dummy.run_folder)["03_shift__nut"][0] == "failed"


def test_input_errors_alone_give_exit_code_2(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    assert report_errors({"01_look": "DataError: x.png is cut short"}, folder) == 2
    assert report_errors({"a": "DataError: x", "b": "not run: it needs a"}, folder) == 2
    assert report_errors({"a": "DataError: x", "b": "KeyError: 1"}, folder) == 1
    assert "x.png is cut short" in capsys.readouterr().err


RUN_DUMMY = """
import sys; sys.path[:0] = [{root!r}]
from pathlib import Path
import json
from nbhelpers.runner import execute as executor, graph
from nbhelpers.runner.graph import Notebook, RunFolder
folder = Path({folder!r})
data = {{"nut": "d", "rug": "d"}}
table = [Notebook(stem, tuple(after), tuple(per)) for stem, after, per in json.loads({table!r})]
jobs = graph.build_jobs({axes!r}, {{"profile": "tiny", "overrides": {{}}}}, {{"code": "1", "settings": "None"}},
                        data, table, folder / "notebooks")
sys.exit(len(executor.execute(jobs, RunFolder(folder / "outputs" / "dummy"))))
"""


def start(dummy: Dummy) -> subprocess.Popen:
    """The dummy study in a process of its own."""
    table = json.dumps([(row.stem, row.after, row.per) for row in dummy.table])
    text = RUN_DUMMY.format(
        root=str(graph.ROOT),
        folder=str(dummy.folder), table=table, axes=dummy.axes,
    )  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(folder: Path) -> list[int]:
    """Processes that name the folder in their command line."""
    return [
        p.pid
        for p in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(p.info["cmdline"] or [])
    ]


@pytest.fixture
def held(tmp_path):
    """A run in a process of its own, its second notebook at work until the file ``hold`` goes."""
    dummy = Dummy(tmp_path, (Notebook("01_look"), Notebook("04_fit", after=("01",))))
    dummy.hold = tmp_path / "hold"
    dummy.hold.touch()
    waiting = f"import pathlib, time\nwhile pathlib.Path({str(dummy.hold)!r}).exists():\n    time.sleep(0.1)"
    dummy.write("04_fit", waiting)
    dummy.process = start(dummy)
    wait_for(lambda: dummy.run_folder.running("04_fit").exists())
    yield dummy
    dummy.process.communicate(timeout=60)


def test_a_killed_run_leaves_no_process_and_the_next_one_completes_it(held):
    pid = held.process.pid
    busy = pytest.raises(ResourceError, match=f"found one at work .pid {pid}.")
    with busy, only_run(held.run_folder.run, patience=0.2):
        pass
    os.kill(pid, signal.SIGKILL)
    held.process.wait()
    wait_for(lambda: not alive(held.run_folder.run), 30)
    held.hold.unlink()
    assert held.ran() == ["01_look - -"]
    assert executor.execute(held.jobs(), held.run_folder) == {}
    assert held.ran() == ["04_fit - -"]
    assert not list(held.run_folder.output.glob("executed/*.running.ipynb"))


def test_a_killed_snakemake_loses_nothing_that_is_done(held):
    (snakemake,) = psutil.Process(held.process.pid).children()
    snakemake.kill()
    held.hold.unlink()
    assert held.process.wait(60) == 0
    assert executor.execute(held.jobs(), held.run_folder) == {}
    assert held.ran() == ["01_look - -", "04_fit - -"]  # each once


def test_listing_digest_sees_a_changed_added_and_removed_file(tmp_path):
    x, y = tmp_path / "a" / "x.png", tmp_path / "y.png"
    x.parent.mkdir()
    x.write_bytes(b"1")
    y.write_bytes(b"1")
    first = graph.listing_digest(tmp_path, [x])
    assert graph.listing_digest(tmp_path, [x]) == first
    assert graph.listing_digest(tmp_path, [y, x]) == graph.listing_digest(tmp_path, [x, y]) != first
    x.write_bytes(b"12")
    assert graph.listing_digest(tmp_path, [x]) != first


@pytest.mark.parametrize("link", ["train/good", "test/crack", "ground_truth/crack", "."])
def test_a_changed_or_added_file_behind_a_link_is_seen(tmp_path, link):
    base = tmp_path / "root" / "nut"
    for name in (
        "train/good/0.png",
        "test/good/0.png",
        "test/crack/0.png",
        "ground_truth/crack/0.png",
    ):
        write_png(base / name, np.zeros((8, 8, 3), np.uint8))
    (base / link).rename(tmp_path / "nas")
    (base / link).symlink_to(tmp_path / "nas")
    (base / "train/good/gone.png").symlink_to("nowhere.png")

    def digest():
        return graph.listing_digest(base.parent, survey_category(base.parent, "nut").files)

    first = digest()
    assert digest() == first
    changed = sorted((tmp_path / "nas").rglob("0.png"))[0]
    write_png(changed, np.full((8, 9, 3), 7, np.uint8))
    second = digest()
    (base / "train/good/gone.png").unlink()
    assert len({first, second, digest()}) == 3


def test_digest_keeps_parts_apart():
    assert graph.digest(["ab", "c"]) != graph.digest(["a", "bc"])


def test_a_full_disk_is_a_named_error(done, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(done.folder))

    monkeypatch.setattr(graph, "write_json", full)
    with pytest.raises(ResourceError, match="No space left"):
        executor.execute(done.jobs(), done.run_folder)
