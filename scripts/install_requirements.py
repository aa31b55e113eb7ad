"""Install requirements.lock and the clone itself into the Python that runs this file.

make calls it with .venv/bin/python at the first set-up, and again when the pins change:

    .venv/bin/python scripts/install_requirements.py --torch auto

uv does the work, which pip brings; where uv cannot be installed, pip does it. Every file is checked
against its hash in the lock. ``--torch`` chooses PyTorch's builds, which matters on Linux alone:

* ``cuda``: those of the package registry, with 4 GB of GPU libraries;
* ``cpu``: those without, from PyTorch's own index;
* ``auto``: ``cpu`` on a machine without an NVIDIA GPU if that index can be reached, else ``cuda``.

Only the standard library is imported here, since nothing is installed yet.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, PINS = ROOT / "requirements.lock", ROOT / "requirements.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 6  # seconds that the index has to answer
TORCH = ("torch", "torchvision")
#: Packages of the lock that only the GPU builds need.
GPU_LIBRARY = re.compile(r"(nvidia|cuda)-|triton$")


def pinned(name: str) -> str:
    """Give the version of a package in requirements.txt."""
    versions = re.findall(rf"^{name}==(\S+)", PINS.read_text(), re.MULTILINE)
    if len(versions) != 1:
        raise SystemExit(f"{PINS.name}: expected one line {name}==..., found {len(versions)}")
    return versions[0]


def releases(lock: str, chosen: Callable[[str], bool]) -> str:
    """Keep the releases of a lock's text, with their hashes, whose names are chosen."""
    kept, keep = [], False
    for line in lock.splitlines(keepends=True):
        name = re.match(r"([A-Za-z0-9._-]+)==", line)
        keep = chosen(name[1]) if name else keep
        if keep:
            kept.append(line)
    return "".join(kept)


def needs_no_gpu(name: str) -> bool:
    """Whether a package is neither PyTorch nor one of its GPU libraries."""
    return name not in TORCH and not GPU_LIBRARY.match(name)


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU finds one."""
    if not shutil.which("nvidia-smi"):
        return False
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and "GPU" in answer.stdout


def cpu_builds_reachable() -> bool:
    """Whether PyTorch's index answers in time and has the pinned version."""
    program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    command = [sys.executable, "-c", program, f"{CPU_INDEX}/torch/"]
    try:  # in a process of its own, which can be ended while it still looks the name up
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    release = rf"torch-{re.escape(pinned('torch'))}(\+|%2B)cpu"
    return answer.returncode == 0 and re.search(release, answer.stdout) is not None


def choose_builds(choice: str) -> str:
    """Turn ``auto`` into ``cpu`` or ``cuda`` and say why; check that ``cpu`` can be installed."""
    if choice == "cuda" or platform.system() != "Linux" or (choice == "auto" and has_gpu()):
        return "cuda"
    if cpu_builds_reachable():
        print("PyTorch: builds without GPU libraries")
        return "cpu"
    if choice == "cpu":
        raise SystemExit(
            f"TORCH=cpu: expected torch {pinned('torch')} at {CPU_INDEX}, found no answer in "
            f"{PATIENCE} s or no such version; use TORCH=auto"
        )
    print(
        "PyTorch: no NVIDIA GPU here, but the index of builds without GPU libraries gives no answer: "
        "taking the registry's"
    )
    return "cuda"


def pip_setting(name: str) -> str:
    """Give a setting of pip (environment or configuration file), empty where it has none."""
    variable = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return variable or answer.stdout.strip()


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Add pip's registry and certificates to an environment, since uv does not read pip's files."""
    settings = {"UV_DEFAULT_INDEX": pip_setting("index-url"), "SSL_CERT_FILE": pip_setting("cert")}
    return {**{name: value for name, value in settings.items() if value}, **environment}


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> bool:
    """Run a command with its output on the terminal; returns whether it succeeded."""
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def installer(folder: Path) -> tuple[list[str], dict[str, str] | None]:
    """Give the command that installs, and its environment: uv's if it can be had, else pip's.

    Args:
        folder: A temporary folder, for the part of the lock that names uv.
    """
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    uv_alone = folder / "uv.lock"
    uv_alone.write_text(releases(LOCK.read_text(), lambda name: name == "uv"))
    if run([*pip, "--quiet", "--require-hashes", "-r", str(uv_alone)]):
        uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
        return uv, uv_environment(os.environ)
    print("uv cannot be installed: pip installs instead, which takes some minutes longer")
    return pip, None


def install(builds: str) -> None:
    """Install the locked packages, and the clone as an editable package.

    Args:
        builds: Those of PyTorch, ``cpu`` or ``cuda``.

    Raises:
        SystemExit: A package cannot be installed.
    """
    with tempfile.TemporaryDirectory() as name:
        command, environment = installer(Path(name))
        lock, steps = LOCK, []
        if builds == "cpu":  # other files than those of the lock, so without its hashes
            lock = Path(name, "requirements.lock")
            lock.write_text(releases(LOCK.read_text(), needs_no_gpu))
            pins = [f"{package}=={pinned(package)}" for package in TORCH]
            steps.append(["--no-deps", "--index-url", CPU_INDEX, *pins])
        steps.append(["--no-deps", "--require-hashes", "-r", str(lock)])
        steps.append(["--no-deps", "--no-build-isolation", "--editable", "."])
        for step in steps:
            if not run([*command, *step], environment):
                raise SystemExit(f"could not install {step[-1]}; see above, then run again")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Install the study into this Python.")
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    print(
        "Installing requirements.lock into .venv, the first time some minutes: 7 GB of disk with the"
    )
    print("GPU libraries that PyTorch brings on Linux, 2 GB without.")
    install(choose_builds(options.torch))


if __name__ == "__main__":
    main()
