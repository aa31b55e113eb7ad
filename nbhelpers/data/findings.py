"""What is odd about a data set, as data: one row for each finding, for notebook 01 and for commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import pandas as pd


@dataclass(frozen=True)
class Finding:
    """One oddity of the data that a person should know of before anything is fitted.

    Attributes:
        file: The file or folder that shows it, as a path below the data root; where several do, the
            first of them and how many more there are.
        what: What was found.
        effect: What it does to the results.
        remedy: What settles it: a change of the files, or a setting.
        harmful: Whether results would be wrong without a word if nothing is done; False where the
            study reads the files right and only says how.
    """

    file: str
    what: str
    effect: str
    remedy: str
    harmful: bool = False

    def __str__(self) -> str:
        kind = "warning" if self.harmful else "note"
        return f"{kind}: {self.file}: {self.what}; {self.effect}; {self.remedy}"


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table, the harmful ones first; its columns are the fields of ``Finding``."""
    ordered = sorted(findings, key=lambda finding: not finding.harmful)
    return pd.DataFrame(
        [asdict(finding) for finding in ordered], columns=[field.name for field in fields(Finding)]
    )


def named(files: list[str]) -> str:
    """The first of several files, and how many more there are."""
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
