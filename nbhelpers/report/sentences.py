"""What the numbers say, in sentences: each number is looked up, and its row named, so that any can
be checked.

A change or a difference is claimed only where its interval excludes 0 or its corrected test says
so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from nbhelpers.results.numbers import Number, Results, label
from nbhelpers.results.table import MACRO, PROMISE

SPAN = Markup('<span class="n" data-row="{}" data-field="{}">{}</span>')


def span(number: Number, field: str = "value") -> Markup:
    """One field of a row as HTML that names the row: what stands in the report is what stands in
    ``metrics.csv``.
    """
    return SPAN.format(number.key, field, number.text(field).replace("-", "\N{MINUS SIGN}"))


def shown(number: Number) -> Markup:
    """A value with its interval, if there is one."""
    if not number.has_interval:
        return span(number)
    interval = Markup('{} <span class="ci">[{}, {}]</span>')
    return interval.format(span(number), span(number, "ci_low"), span(number, "ci_high"))


def listed(parts: Sequence[str]) -> Markup:
    """``a, b and c``."""
    parts = [escape(part) for part in parts]
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])


def levels(results: Results, scenario: str, metric: str, opening: str) -> list[Markup]:
    """The macro average of every method in a scenario."""
    found = [(method, results.find(scenario, method, MACRO, metric)) for method in results.methods]
    parts = [
        Markup("{} for {}").format(shown(number), label(method))
        for method, number in found
        if number
    ]
    return (
        [Markup("{} the macro {} is {}.").format(opening, label(metric), listed(parts))]
        if parts
        else []
    )


#: The sign of a difference's interval to what is said; None is a difference without one.
VERDICTS = {
    1: "rises for",
    -1: "falls for",
    0: "shows no change for",
    None: "is given without an interval, so that no change is claimed, for",
}


def change(
    results: Results, before: str, after: str, metric: str, opening: str = "", category: str = MACRO
) -> list[Markup]:
    """What happens to a metric from one scenario to the next; a change only where the interval
    excludes 0.
    """
    groups: dict[str, list[Markup]] = {}
    for method in results.methods:
        by = results.find(after, method, category, metric, against=before)
        ends = [results.find(name, method, category, metric) for name in (before, after)]
        if by is None or None in ends:
            continue
        if by.is_nothing:
            groups.setdefault("stays as it is for", []).append(
                Markup("{} ({})").format(label(method), span(ends[0]))
            )
        else:
            clause = Markup("{} ({} to {}, difference {})")
            groups.setdefault(VERDICTS[by.sign], []).append(
                clause.format(label(method), *map(span, ends), shown(by))
            )
    clauses = [Markup("{} {}").format(verdict, listed(parts)) for verdict, parts in groups.items()]
    what = f"macro {label(metric)}" if category == MACRO else f"{label(metric)} on {category}"
    start = f"{opening} the" if opening else "The"
    return (
        [Markup("{} {} {}.").format(start, what, Markup("; it ").join(clauses))] if clauses else []
    )


def changes(results: Results, before: str, after: str, metrics: Sequence[str]) -> list[Markup]:
    """``change`` for every metric."""
    return [text for metric in metrics for text in change(results, before, after, metric)]


def _where(results: Results, categories: Sequence[str]) -> Markup:
    """Categories in words."""
    found = [category for category in results.categories if category in categories]
    every = len(found) == len(results.categories) > 1
    return Markup("every category") if every else listed(found)


def not_above_trivial(results: Results) -> list[Markup]:
    """Where an F1 is not shown to beat calling everything a defect."""
    texts = []
    for scenario in results.scenarios:
        names = []
        for method in results.methods:
            cells = [
                (
                    c,
                    results.find(scenario, method, c, "f1"),
                    results.find(scenario, method, c, "trivial_f1"),
                )
                for c in results.categories
            ]
            weak = [
                c
                for c, own, bar in cells
                if own and bar and (own.value if own.ci_low is None else own.ci_low) <= bar.value
            ]
            if weak:
                names.append(Markup("{} on {}").format(label(method), _where(results, weak)))
        if names:
            words = Markup("; ").join(names)
            texts.append(Markup("{}: {}.").format(label(scenario).capitalize(), words))
    return texts


def degenerate(results: Results, rule: str) -> list[Markup]:
    """Where the deployed rule's thresholds say nothing: they flag every good image, or no defect,
    or are chance.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for number in results.where(metric="degenerate", detail="rule", detail_value=rule, macro=False):
        if number.value:
            found.setdefault((number.scenario, number.method), []).append(number.category)
    return [
        Markup("{}: {} on {}.").format(
            label(scenario).capitalize(), label(method), _where(results, categories)
        )
        for (scenario, method), categories in found.items()
    ]


def promises(results: Results, scenarios: Sequence[str]) -> list[Markup]:
    """Where the realised false alarm rate lies above the promised one, by the whole interval."""
    groups: dict[tuple[str, str, str], list[Number]] = {}
    for number in results.where(metric="realised_fpr", detail=PROMISE):
        if number.scenario in scenarios:
            promise = (number.details["rule"], number.details["target"], number.scenario)
            groups.setdefault(promise, []).append(number)
    texts = []
    for (rule, target, scenario), numbers in groups.items():
        broken = [n for n in numbers if n.ci_low is not None and n.ci_low > float(target)]
        cells = [
            Markup("{} on {} ({})").format(label(n.method), n.category, shown(n)) for n in broken
        ]
        verdict = (
            Markup("is broken for {}").format(listed(cells))
            if cells
            else "is contradicted by no interval"
        )
        texts.append(
            Markup("{}, scenario {}: the promise of a false alarm rate of {} {}.").format(
                label(rule).capitalize(), label(scenario), span(numbers[0], "target"), verdict
            )
        )
    return texts


def transfers(results: Results) -> list[Markup]:
    """What the clean threshold does on shifted images of each category: observed rates."""
    texts = []
    for method in results.methods:
        parts = []
        for category in results.categories:
            home, away = (
                results.find(
                    "transfer", method, category, "fpr", threshold_from="clean", tested_on=domain
                )
                for domain in ("clean", "shift")
            )
            if home and away:
                parts.append(
                    Markup("{} on clean and {} on shifted {} images").format(
                        shown(home), shown(away), category
                    )
                )
        if parts:
            texts.append(
                Markup("{} with the threshold from clean has a false alarm rate of {}.").format(
                    label(method), listed(parts)
                )
            )
    return texts


def comparisons(results: Results, scenarios: Iterable[str]) -> list[Markup]:
    """Which method ranks better, by DeLong's test after Holm's correction."""
    texts = []
    for scenario in scenarios:
        for pair in results.pairs:
            first, second = map(label, pair)
            tested = [category for _, category in results.tested(scenario, pair, "delong")]
            apart = results.told_apart(scenario, pair, "image_auroc", "delong")
            clauses = []
            for category, by in apart.items():
                p = results.find(
                    scenario, pair[0], category, "p_delong_holm", against_method=pair[1]
                )
                clauses.append(
                    Markup("{} ranks better on {} (difference {}, Holm p {})").format(
                        first if by.value > 0 else second, category, shown(by), span(p)
                    )
                )
            rest = [category for category in tested if category not in apart]
            if rest:
                clauses.append(Markup("no difference is shown on {}").format(listed(rest)))
            if clauses:
                texts.append(
                    Markup("Scenario {}, {} against {}: {}.").format(
                        label(scenario), first, second, Markup("; ").join(clauses)
                    )
                )
    return texts


def shortcut(results: Results) -> list[Markup]:
    """Whether patches of one model for all find their neighbours in other categories."""
    parts = []
    shares = {"metric": "other_category_share", "detail": "patches"}
    for defect in results.where(**shares, detail_value="defect"):
        place = (defect.scenario, defect.method, defect.category, defect.metric)
        normal = results.find(*place, patches="normal")
        if normal:
            parts.append(
                Markup("{} of the defect and {} of the normal patches of {}").format(
                    shown(defect), shown(normal), defect.category
                )
            )
    return (
        [
            Markup(
                "The nearest neighbour in the common memory bank comes from another category for {}."
            ).format(listed(parts))
        ]
        if parts
        else []
    )


def weakest_types(results: Results, scenarios: Iterable[str]) -> list[Markup]:
    """The defect type with the lowest observed recall in each category."""
    texts = []
    for scenario in scenarios:
        for method in results.methods:
            lowest: dict[str, Number] = {}
            for number in results.where(
                metric="recall", detail="defect_type", scenario=scenario, method=method
            ):
                rival = lowest.setdefault(number.category, number)
                lowest[number.category] = min(rival, number, key=lambda n: n.value)
            parts = [
                Markup("{} on {} ({} of {} images)").format(
                    span(n, "defect_type"), category, shown(n), span(n, "n_images")
                )
                for category, n in lowest.items()
            ]
            if parts:
                texts.append(
                    Markup("Scenario {}, {}: the lowest observed recall is that of {}.").format(
                        label(scenario), label(method), listed(parts)
                    )
                )
    return texts


def missed(results: Results, scenarios: Iterable[str]) -> list[Markup]:
    """Which share of the defects no method finds."""
    texts = []
    for scenario in scenarios:
        parts = [
            Markup("{} on {}").format(shown(n), n.category)
            for n in results.where(metric="missed_by_all", scenario=scenario)
        ]
        if parts:
            texts.append(
                Markup(
                    "Scenario {}: the share of defect images that every method misses is {}."
                ).format(label(scenario), listed(parts))
            )
    return texts


def seeds(results: Results) -> list[Markup]:
    """How far image AUROC moves when the models are fitted again with other seeds."""
    groups: dict[str, dict[str, list[Number]]] = {}
    for number in results.where(scenario="seeds", metric="image_auroc"):
        groups.setdefault(number.method, {}).setdefault(number.category, []).append(number)
    texts = []
    for method, categories in groups.items():
        parts = [
            Markup("{} and {} on {}").format(
                span(min(own, key=lambda n: n.value)),
                span(max(own, key=lambda n: n.value)),
                category,
            )
            for category, own in categories.items()
        ]
        texts.append(
            Markup("{} fitted with other seeds: image AUROC lies between {}.").format(
                label(method), listed(parts)
            )
        )
    return texts


def summary(results: Results) -> list[Markup]:
    """The study in a few lines, of what was computed."""
    steps = [
        ("clean", "no_adaptation", "image_auroc", "Under the shift"),
        ("clean", "no_adaptation", "specificity", "At the deployed threshold"),
        ("no_adaptation", "threshold_only", "balanced_accuracy", "With a new threshold alone"),
        (
            "threshold_only",
            "full_adaptation",
            "image_auroc",
            "With a model fitted on the shift as well",
        ),
        ("clean", "global", "image_auroc", "With one model for all categories"),
    ]
    texts = levels(results, "clean", "image_auroc", "Where they were trained,")
    return texts + [
        text
        for before, after, metric, opening in steps
        for text in change(results, before, after, metric, f"{opening},")
    ]
