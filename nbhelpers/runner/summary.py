"""What a run says at its end: the results in a few lines, where the rest is, what went wrong."""

import sys
from collections.abc import Mapping

from nbhelpers.errors import named_errors
from nbhelpers.runner.command_line import shown
from nbhelpers.runner.graph import RunFolder

METRICS = ("image_auroc", "aupro", "balanced_accuracy")


def summarise(folder: RunFolder, confidence: float) -> str:
    """Put the macro averages of each scenario and method on one line.

    Args:
        folder: The run's folder, with ``results/metrics.csv`` in it.
        confidence: Level of the intervals, in (0, 1).

    Returns:
        A table as text: image AUROC, AUPRO and balanced accuracy, each with its interval where it
        has one and ``-`` where it was not measured; empty where no scenario was evaluated.

    Raises:
        DataError: The table of metrics is damaged.
    """
    from nbhelpers.results.numbers import Results, label, read_metrics
    from nbhelpers.results.table import MACRO

    path = folder.output / "results" / "metrics.csv"
    if not path.is_file():
        return ""
    results = Results(read_metrics(path))
    rows = []
    for scenario in results.scenarios:
        for method in results.methods:
            numbers = [results.find(scenario, method, MACRO, metric) for metric in METRICS]
            if any(numbers):
                texts = ["-" if number is None else str(number) for number in numbers]
                rows.append([scenario, label(method), *texts])
    if not rows:
        return ""
    rows.insert(0, ["scenario", "method", *map(label, METRICS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    categories = ", ".join(results.categories)
    return "\n".join([f"Macro averages over {categories} [{confidence:.0%} interval]", *lines])


def report_results(folder: RunFolder, confidence: float) -> None:
    """Print the summary of the results, and where the report and everything else is."""
    summary = summarise(folder, confidence)
    if summary:
        print(f"\n{summary}\n")
    places = {
        "report": folder.output / "report" / "report.html",
        "all numbers": folder.output / "results" / "metrics.csv",
        "figures": folder.output / "figures",
        "executed notebooks": folder.output / "executed",
    }
    for name, path in places.items():
        if path.exists():  # not all of them where only some notebooks were run
            print(f"{name:<18}  {shown(path)}")


def report_errors(errors: Mapping[str, str], folder: RunFolder) -> int:
    """Print what failed and where to look.

    Args:
        errors: One line for each job that failed or was not run, by the job's name.
        folder: The run's folder.

    Returns:
        The exit code: 2 if named errors, which the user can correct, explain all of it, else 1.
    """
    print(f"\n{len(errors)} notebooks are not up to date:", file=sys.stderr)
    failures = []
    for name, error in errors.items():
        print(f"  {name.replace('__', ' ')}\n    {error}", file=sys.stderr)
        if folder.failed(name).is_file():
            print(f"    executed copy: {shown(folder.failed(name))}", file=sys.stderr)
        if folder.log(name).is_file():
            print(f"    log: {shown(folder.log(name))}", file=sys.stderr)
        if not error.startswith("not run"):
            failures.append(error)
    correctable = named_errors()
    return 2 if all(error.split(":")[0] in correctable for error in failures) else 1
