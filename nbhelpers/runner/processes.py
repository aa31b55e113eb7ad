"""Allow one run at a time in an output folder, and no process that outlives its run.

A run is a chain: the runner, Snakemake, one process a notebook, its kernel. Any of them can be
killed at any moment; what is left of the chain must end by itself and must not touch the files of
the next run.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from nbhelpers.errors import ResourceError

RUNNER = "STUDY_RUNNER_PID"  # environment variable that tells a notebook's process who runs it


def notebook_environment(threads: int) -> dict[str, str]:
    """Give this process's environment as a notebook should see it.

    It has a fixed number of threads (sums depend on it), no progress bars, and this interpreter's
    own ``python3`` kernel.
    """
    dropped = (
        "MPLBACKEND",
        "SNAKEMAKE_PROFILE",
    )  # would take the figures out, or change Snakemake's options
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    fixed = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    # Some package imports tqdm.auto, which warns about missing widgets, with the path of this
    # machine.
    quiet = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found")))
    return {
        **kept,
        **fixed,
        "PYTHONWARNINGS": quiet,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "TQDM_DISABLE": "1",
    }


@contextlib.contextmanager
def only_run(folder: Path, patience: float = 3.0) -> Iterator[None]:
    """Hold the lock of a run in ``folder``, and first end what a killed run may have left behind.

    Raises:
        ResourceError: Another run holds the lock, also after ``patience`` seconds.
    """
    lock, pid_file = FileLock(folder / "lock"), folder / "pid"
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        pid = pid_file.read_text() if pid_file.is_file() else "unknown"
        raise ResourceError(
            f"{folder.parent}: expected no other run, found one at work (pid {pid}); wait for its "
            "end or stop it"
        ) from None
    try:
        pid_file.write_text(str(os.getpid()))
        end_leftovers(folder)
        yield
    finally:
        lock.release()


def end_leftovers(folder: Path) -> list[int]:
    """Kill the processes of an earlier run in ``folder`` and return their ids.

    They are known by their command line: Snakemake is given the graph of that folder, a notebook's
    process its job file. Call this only while holding the lock: then no living run can own them.
    """
    leftovers = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        snakemake = "snakemake" in command and str(folder / "graph.json") in command
        notebook = "nbhelpers.runner.notebook" in command[:3]
        if snakemake or (notebook and any(Path(arg).parent == folder / "jobs" for arg in command)):
            leftovers.append(process)
    for process in leftovers:
        end_tree(process)
    psutil.wait_procs(leftovers, timeout=10)
    return [process.pid for process in leftovers]


def end_tree(process: psutil.Process, itself: bool = True) -> None:
    """Kill all processes below ``process`` and, if asked, the process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if itself:
            process.kill()


def end_with(pid: int, every: float = 0.5) -> None:
    """Let this process, and all below it, end when process ``pid`` ends, at most ``every`` seconds
    later.
    """

    def watch(other: psutil.Process) -> None:
        while other.is_running() and other.status() != psutil.STATUS_ZOMBIE:
            time.sleep(every)
        leave()

    def leave() -> None:
        end_tree(psutil.Process(), itself=False)
        os._exit(1)

    try:
        other = psutil.Process(pid)
    except psutil.NoSuchProcess:
        leave()
    threading.Thread(target=watch, args=(other,), daemon=True).start()
