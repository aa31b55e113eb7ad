"""Compare the output of a notebook's cell with the stored one: exactly, except for what depends on a
trained network.

Training multiplies rounding errors, so another processor trains another network. Lines that name an
autoencoder (and, in a table, the indented ones below that belong to it) hold its numbers; so do, in
a cell with the tag ``trained``, lines that name no method. Their words must be equal and each
number within a tolerance of its own:

* a value followed by its interval, ``0.71 [0.47, 0.89]``, and the bounds may differ by half the
  interval's width;
* a p value (a column called ``p``, ``p_...`` or ``..._pvalue``) may be any other in [0, 1], since it
  may jump there; in a tagged cell this holds for every method, since the p values of all may be
  corrected together;
* any other number may differ by ``SPREAD``; a share of few images, in a table that states how many
  in a column ``n`` or ``images``, by at least what one image more or less makes of it, 1 / n.

The verdict of a sentence about a trained network ("falls for", "shows no change for") may be
another one, since it follows from an interval that may move.

All other lines are compared to the letter, except that the bounds of an interval may differ by
``BOUND``: in a few of many resamples a threshold lies between two scores that rounding swaps.
"""

import re

from nbhelpers.methods import METHODS
from nbhelpers.report.sentences import VERDICTS

TAG = "trained"
NAMES = {name for row in METHODS.values() for name in (row.name, row.label)}
TRAINED = re.compile(
    r"(?<!\w)(?:"
    + "|".join(
        re.escape(name)
        for row in METHODS.values()
        if row.architecture
        for name in (row.name, row.label)
    )
    + r")(?!\w)"
)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w)")
P_VALUE = re.compile(r"p$|p_|.*_pvalue$")
IMAGES = ("n", "images")
VERDICT = re.compile("|".join(map(re.escape, VERDICTS.values())))
INTERVAL = re.compile(r"\s*\[([-+]?[\d.]+), ([-+]?[\d.]+)\]")

#: How far apart two trainings may be that differ in the processor or the seed alone: decimals
#: (three of the twelve good test images), whole numbers, and either above 1 (relative).
SPREAD = {"share": 0.25, "count": 3, "relative": 0.25}
#: How far a bound of an interval may move where the value itself must not.
BOUND = 0.05


def settle(new: str, stored: str, tagged: bool = False) -> str:
    """Replace every line of ``new`` that agrees with its stored one, within the tolerance, by that.

    A comparison of the result with ``stored`` then finds what does not agree, and nothing else.

    Args:
        new: The text that a cell printed.
        stored: The text that the committed notebook has there.
        tagged: Whether the cell has the tag ``trained``.
    """
    new_lines, stored_lines = new.splitlines(), stored.splitlines()
    if len(new_lines) != len(stored_lines):
        return new
    settled: list[str] = []
    header: dict[int, str] = {}  # names of a table's columns, by where they end
    in_header, kind = False, ""
    for line, expected in zip(new_lines, stored_lines, strict=True):
        words_only = not NUMBER.search(expected)
        if words_only:  # a header may have two lines; numbers end where their column's name ends
            names = {word.end(): word.group() for word in re.finditer(r"\S+", expected)}
            header = header | names if in_header else names
        in_header = words_only
        kind = _kind(expected, kind)
        loose = kind == "trained" or (tagged and not kind)
        agrees = _agree(line, expected, header, loose, loose or tagged)
        settled.append(expected if agrees else line)
    return "\n".join(settled) + new[len(new.rstrip("\n")) :]


def _kind(line: str, before: str) -> str:
    """Say which numbers a line holds: ``trained``, ``exact``, or "" where no method is named; an
    indented line belongs to the one ``before`` it.
    """
    if TRAINED.search(line):
        return "trained"
    if any(line.lstrip().startswith(name) for name in NAMES):
        return "exact"
    return before if line.startswith(" ") else ""


def _agree(new: str, stored: str, header: dict[int, str], loose: bool, jumps: bool) -> bool:
    """Check whether two lines have the same words, and numbers that are near enough.

    Args:
        new: The line.
        stored: The line that it is compared with.
        header: Names of the table's columns, by where they end.
        loose: Whether every number has a tolerance, or the bounds of intervals alone.
        jumps: Whether p values may be others.
    """
    if _words(new, loose) != _words(stored, loose):
        return False
    half_width, left = 0.0, 0  # of an interval, and how many of its numbers are still to come
    images = next(
        (
            int(number.group())
            for number in NUMBER.finditer(stored)
            if header.get(number.end()) in IMAGES and number.group().isdigit()
        ),
        0,
    )
    for actual, expected in zip(NUMBER.finditer(new), NUMBER.finditer(stored), strict=True):
        value, reference = (float(number.group().replace(",", "")) for number in (actual, expected))
        interval = INTERVAL.match(stored, expected.end())
        if interval:
            half_width, left = (float(interval[2]) - float(interval[1])) / 2, 3
        if jumps and P_VALUE.match(header.get(expected.end(), "")):
            near = 0 <= value <= 1
        elif not loose and left in (1, 2):
            near = abs(value - reference) <= BOUND + 1e-9
        elif loose:
            near = (
                abs(value - reference)
                <= max(half_width if left > 0 else 0.0, _spread(expected.group(), images)) + 1e-9
            )
        else:
            near = actual.group() == expected.group()
        if not near:
            return False
        left -= 1
    return True


def _words(line: str, loose: bool) -> list[str]:
    """Give the words of a line without its numbers, and in a loose one without its verdicts."""
    words = NUMBER.sub("#", line)
    return (VERDICT.sub("<verdict>", words) if loose else words).split()


def _spread(number: str, images: int) -> float:
    """Give how far a number without an interval may move; ``images`` is 0 where that is not stated."""
    size = abs(float(number.replace(",", "")))
    least = SPREAD["count"]
    if "." in number:
        least = max(SPREAD["share"], 1 / images if images else 0.0)
    return max(least, SPREAD["relative"] * size if size > 1 else 0.0)
