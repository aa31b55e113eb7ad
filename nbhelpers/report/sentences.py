"""The sentences of the report that hold numbers.

Each number is looked up in the tidy table and carries the name of its row, so that it can be
checked. A change or a difference is claimed only where its interval excludes 0 or its corrected
test is significant. Every function returns a list of sentences, which is empty where the rows
were not computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from markupsafe import Markup, escape

from nbhelpers.results.numbers import Number, Results, label
from nbhelpers.results.table import MACRO, PROMISE

SPAN = Markup('<span class="n" data-row="{}" data-field="{}">{}</span>')


def span(number: Number, field: str = "value") -> Markup:
    """One field of a row as HTML that names the row in ``metrics.csv``."""
    return SPAN.format(number.key, field, number.text(field).replace("-", "\N{MINUS SIGN}"))


def shown(number: Number) -> Markup:
    """A value as HTML, with its interval if there is one."""
    if not number.has_interval:
        return span(number)
    interval = Markup('{} <span class="ci">[{}, {}]</span>')
    return interval.format(span(number), span(number, "ci_low"), span(number, "ci_high"))


def listed(texts: Sequence[str]) -> Markup:
    """Texts as a list in a sentence: ``a, b and c``."""
    escaped = [escape(text) for text in texts]
    if len(escaped) < 2:
        return Markup("").join(escaped)
    return Markup("{} and {}").format(Markup(", ").join(escaped[:-1]), escaped[-1])


def levels(results: Results, scenario: str, metric: str, opening: str) -> list[Markup]:
    """The macro average of every method in a scenario."""
    values = []
    for method in results.methods:
        number = results.find(scenario, method, MACRO, metric)
        if number is not None:
            values.append(Markup("{} for {}").format(shown(number), label(method)))
    if not values:
        return []
    return [Markup("{} the macro {} is {}.").format(opening, label(metric), listed(values))]


#: The sign of a difference's interval to its verb; None is a difference without an interval.
VERDICTS = {
    1: "rises for",
    -1: "falls for",
    0: "shows no change for",
    None: "is given without an interval, so that no change is claimed, for",
}


def change(
    results: Results, before: str, after: str, metric: str, opening: str = "", category: str = MACRO
) -> list[Markup]:
    """What happens to a metric from one scenario to the next.

    A change is claimed only where the interval excludes 0.
    """
    by_verdict: dict[str, list[Markup]] = {}
    for method in results.methods:
        by = results.find(after, method, category, metric, against=before)
        start = results.find(before, method, category, metric)
        end = results.find(after, method, category, metric)
        if by is None or start is None or end is None:
            continue
        if by.is_nothing:
            text = Markup("{} ({})").format(label(method), span(start))
            by_verdict.setdefault("stays as it is for", []).append(text)
        else:
            text = Markup("{} ({} to {}, difference {})").format(
                label(method), span(start), span(end), shown(by)
            )
            by_verdict.setdefault(VERDICTS[by.sign], []).append(text)
    if not by_verdict:
        return []
    clauses = [
        Markup("{} {}").format(verdict, listed(texts)) for verdict, texts in by_verdict.items()
    ]
    what = f"macro {label(metric)}" if category == MACRO else f"{label(metric)} on {category}"
    subject = f"{opening} the" if opening else "The"
    return [Markup("{} {} {}.").format(subject, what, Markup("; it ").join(clauses))]


def changes(results: Results, before: str, after: str, metrics: Sequence[str]) -> list[Markup]:
    """``change`` for every metric."""
    return [text for metric in metrics for text in change(results, before, after, metric)]


def _categories(results: Results, chosen: Sequence[str]) -> Markup:
    """Categories in words: their names, or "every category"."""
    names = [category for category in results.categories if category in chosen]
    every = len(names) == len(results.categories) > 1
    return Markup("every category") if every else listed(names)


def not_above_trivial(results: Results) -> list[Markup]:
    """Where an F1 is not shown to be higher than that of calling everything a defect."""
    texts = []
    for scenario in results.scenarios:
        clauses = []
        for method in results.methods:
            weak = []
            for category in results.categories:
                f1 = results.find(scenario, method, category, "f1")
                trivial = results.find(scenario, method, category, "trivial_f1")
                if f1 is None or trivial is None:
                    continue
                low = f1.value if f1.ci_low is None else f1.ci_low
                if low <= trivial.value:
                    weak.append(category)
            if weak:
                clauses.append(Markup("{} on {}").format(label(method), _categories(results, weak)))
        if clauses:
            words = Markup("; ").join(clauses)
            texts.append(Markup("{}: {}.").format(label(scenario).capitalize(), words))
    return texts


def degenerate(results: Results, rule: str) -> list[Markup]:
    """Where the thresholds of the deployed rule are useless.

    They flag every good image, or no defect, or are no better than chance.
    """
    useless: dict[tuple[str, str], list[str]] = {}
    for number in results.where(metric="degenerate", detail="rule", detail_value=rule, macro=False):
        if number.value:
            useless.setdefault((number.scenario, number.method), []).append(number.category)
    return [
        Markup("{}: {} on {}.").format(
            label(scenario).capitalize(), label(method), _categories(results, categories)
        )
        for (scenario, method), categories in useless.items()
    ]


def promises(results: Results, scenarios: Sequence[str]) -> list[Markup]:
    """Where the whole interval of the realised false alarm rate lies above the promised rate."""
    by_promise: dict[tuple[str, str, str], list[Number]] = {}
    for number in results.where(metric="realised_fpr", detail=PROMISE):
        if number.scenario in scenarios:
            promise = (number.details["rule"], number.details["target"], number.scenario)
            by_promise.setdefault(promise, []).append(number)
    texts = []
    for (rule, target, scenario), numbers in by_promise.items():
        broken = [
            Markup("{} on {} ({})").format(label(number.method), number.category, shown(number))
            for number in numbers
            if number.ci_low is not None and number.ci_low > float(target)
        ]
        verdict = (
            Markup("is broken for {}").format(listed(broken))
            if broken
            else "is not contradicted by any interval"
        )
        texts.append(
            Markup("{}, scenario {}: the promise of a false alarm rate of {} {}.").format(
                label(rule).capitalize(), label(scenario), span(numbers[0], "target"), verdict
            )
        )
    return texts


def transfers(results: Results) -> list[Markup]:
    """The observed false alarm rates of the clean threshold on clean and on shifted images."""
    texts = []
    for method in results.methods:
        rates = []
        for category in results.categories:
            clean, shifted = (
                results.find(
                    "transfer", method, category, "fpr", threshold_from="clean", tested_on=domain
                )
                for domain in ("clean", "shift")
            )
            if clean is not None and shifted is not None:
                rates.append(
                    Markup("{} on clean and {} on shifted {} images").format(
                        shown(clean), shown(shifted), category
                    )
                )
        if rates:
            texts.append(
                Markup("{} with the threshold from clean has a false alarm rate of {}.").format(
                    label(method), listed(rates)
                )
            )
    return texts


def comparisons(results: Results, scenarios: Iterable[str]) -> list[Markup]:
    """Which method ranks better, by DeLong's test after Holm's correction."""
    texts = []
    for scenario in scenarios:
        for pair in results.pairs:
            first, second = map(label, pair)
            p_values = results.tested(scenario, pair, "delong")
            differences = results.significant(scenario, pair, "image_auroc", "delong")
            clauses = []
            for p, category in p_values:
                by = differences.get(category)
                if by is not None:
                    clauses.append(
                        Markup("{} ranks better on {} (difference {}, Holm p {})").format(
                            first if by.value > 0 else second, category, shown(by), span(p)
                        )
                    )
            others = [category for _, category in p_values if category not in differences]
            if others:
                clauses.append(Markup("no difference is shown on {}").format(listed(others)))
            if clauses:
                texts.append(
                    Markup("Scenario {}, {} against {}: {}.").format(
                        label(scenario), first, second, Markup("; ").join(clauses)
                    )
                )
    return texts


def shortcut(results: Results) -> list[Markup]:
    """Whether the patches of one model for all categories are matched across categories."""
    shares = []
    for defect in results.where(
        metric="other_category_share", detail="patches", detail_value="defect"
    ):
        normal = results.find(
            defect.scenario, defect.method, defect.category, defect.metric, patches="normal"
        )
        if normal is not None:
            shares.append(
                Markup("{} of the defect and {} of the normal patches of {}").format(
                    shown(defect), shown(normal), defect.category
                )
            )
    if not shares:
        return []
    text = "The nearest neighbour in the common memory bank comes from another category for {}."
    return [Markup(text).format(listed(shares))]


def weakest_types(results: Results, scenarios: Iterable[str]) -> list[Markup]:
    """The defect type with the lowest observed recall in each category."""
    texts = []
    for scenario in scenarios:
        for method in results.methods:
            lowest: dict[str, Number] = {}
            for number in results.where(
                metric="recall", detail="defect_type", scenario=scenario, method=method
            ):
                weakest = lowest.setdefault(number.category, number)
                if number.value < weakest.value:
                    lowest[number.category] = number
            types = [
                Markup("{} on {} ({} of {} images)").format(
                    span(number, "defect_type"), category, shown(number), span(number, "n_images")
                )
                for category, number in lowest.items()
            ]
            if types:
                texts.append(
                    Markup("Scenario {}, {}: the lowest observed recall is that of {}.").format(
                        label(scenario), label(method), listed(types)
                    )
                )
    return texts


def missed(results: Results, scenarios: Iterable[str]) -> list[Markup]:
    """The share of the defect images that no method finds."""
    texts = []
    for scenario in scenarios:
        shares = [
            Markup("{} on {}").format(shown(number), number.category)
            for number in results.where(metric="missed_by_all", scenario=scenario)
        ]
        if shares:
            texts.append(
                Markup(
                    "Scenario {}: the share of defect images that every method misses is {}."
                ).format(label(scenario), listed(shares))
            )
    return texts


def seeds(results: Results) -> list[Markup]:
    """The range of image AUROC when the models are fitted again with other seeds."""
    by_method: dict[str, dict[str, list[Number]]] = {}
    for number in results.where(scenario="seeds", metric="image_auroc"):
        by_method.setdefault(number.method, {}).setdefault(number.category, []).append(number)
    texts = []
    for method, categories in by_method.items():
        ranges = [
            Markup("{} and {} on {}").format(
                span(min(numbers, key=attrgetter("value"))),
                span(max(numbers, key=attrgetter("value"))),
                category,
            )
            for category, numbers in categories.items()
        ]
        texts.append(
            Markup("When {} is fitted with other seeds, image AUROC lies between {}.").format(
                label(method), listed(ranges)
            )
        )
    return texts


def summary(results: Results) -> list[Markup]:
    """The study in a few sentences about what was computed."""
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
