"""Names images with the same pixels, and says what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbhelpers.data.exploration import find_duplicates
from nbhelpers.data.findings import Finding, named
from nbhelpers.data.layout import Sample
from nbhelpers.data.splits import copies_of_test


def duplicate_findings(samples: Sequence[Sample], content: Mapping[str, str]) -> list[Finding]:
    """Name the images of one category that have the same pixels as another.

    Args:
        samples: All samples of the category.
        content: The hash of each image's pixels by sample id.
    """
    known = {sample.id: sample for sample in samples}
    groups = find_duplicates({identity: content[identity] for identity in known})
    both = [g for g in groups if len({known[identity].label for identity in g}) > 1]
    left_out = {sample.id for sample in copies_of_test(samples, content)}
    extra = [identity for group in groups for identity in group[1:] if identity not in left_out]
    findings = []
    if both:
        findings.append(
            Finding(
                named([" = ".join(group) for group in both]),
                "the same picture is called good and a defect",
                "one of the labels is wrong, and no method can be right about both",
                "remove the file whose label is wrong",
                harmful=True,
            )
        )
    if left_out:
        findings.append(
            Finding(
                named(sorted(left_out)),
                f"{len(left_out)} images of train/good are also in the test set",
                "left out of train and val, so that nothing leaks; the test set keeps them",
                "nothing to do, or remove them",
            )
        )
    if extra:
        findings.append(
            Finding(
                named(extra),
                f"{len(extra)} images have the same pixels as another",
                "copies stay in one split, where each counts as an image",
                "nothing to do, or remove the copies",
            )
        )
    return findings
