"""Say what is done, what is out of date and why; nothing is run.

    study status
    study status --profile folder --data-root DIR --only train

Give the options that the study is run with.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nbhelpers.config import load_config
from nbhelpers.runner import graph
from nbhelpers.runner.command_line import add_study_options, shown, study_overrides
from nbhelpers.runner.graph import Job, RunFolder
from nbhelpers.runner.plan import check_inputs, plan

ONLY_HELP = f"only these notebooks, by number or group: {', '.join(graph.GROUPS)}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study status``."""
    parser.add_argument("--only", default="", metavar="04,07", help=ONLY_HELP)
    add_study_options(parser)


def command(options: argparse.Namespace) -> int:
    """Print the state of the notebooks and of the stored artefacts; returns the exit code.

    Raises:
        StudyError: A setting is wrong, or the images are not as expected.
    """
    overrides = study_overrides(options)
    config = load_config(options.profile, overrides)
    jobs = plan(config, overrides, check_inputs(config))
    jobs = graph.select(jobs, options.only.split(","))
    report_status(jobs, RunFolder(config.output_dir.resolve()))
    report_artefacts(options.profile, overrides)
    return 0


def report_status(jobs: Sequence[Job], folder: RunFolder, force: bool = False) -> None:
    """Print the state of each job (done, stale, missing or failed), and how many have each."""
    states = graph.survey(jobs, folder, force)
    width = max(len(job.title) for job in jobs)
    for job in jobs:
        state, reason = states[job.name]
        print(f"{job.title:<{width}}  {state:<7}  {reason}".rstrip())
    counts = Counter(state for state, _ in states.values())
    total = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{total} in {shown(folder.output)}")


def report_artefacts(profile: str, overrides: dict[str, Any]) -> None:
    """Print which stored artefacts are out of date, and what changed since they were made."""
    from nbhelpers.analyses.all import stored_artefacts  # slow, as it needs the network libraries
    from nbhelpers.study import open_study

    study = open_study(profile, overrides)
    if not study.config.splits_path.is_file():
        print("artefacts: none, the splits are not drawn yet")
        return
    reasons = {artefact: artefact.why_stale() for artefact in stored_artefacts(study)}
    stale = {artefact.path: reason for artefact, reason in reasons.items() if reason}
    for path, reason in stale.items():
        print(f"{shown(path)}: {reason}")
    print(f"artefacts: {len(reasons) - len(stale)} current, {len(stale)} out of date")
