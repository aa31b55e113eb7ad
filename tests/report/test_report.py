"""The report: each number is that of its row, each claim has its interval or test, the page stands
alone.
"""

import difflib
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from nbhelpers.config import load_config
from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.report import sentences as findings
from nbhelpers.report.page import _setting_paths
from nbhelpers.results.numbers import Results, read_metrics
from nbhelpers.results.table import COLUMNS, KEYS, MACRO, as_table, details_of, to_rows

MINUS = "\N{MINUS SIGN}"


class Page(HTMLParser):
    """Spans with numbers and settings, images, and the text outside of both."""

    def __init__(self, html):
        super().__init__()
        self.numbers, self.settings, self.tags, self.rest = [], [], [], []
        self._open = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "span" and attrs.get("class") in ("n", "s"):
            self._open = attrs

    def handle_data(self, text):
        if self._open is None:
            self.rest.append(text)
        else:
            spans = self.numbers if self._open["class"] == "n" else self.settings
            spans.append((self._open, text))

    def handle_endtag(self, tag):
        if tag == "span":
            self._open = None


@pytest.fixture(scope="module")
def html(three, report):
    return report(three)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def shown_as(value, text):
    """Whether a text is this value, rounded to the digits that the text has."""
    text = text.replace(MINUS, "-")
    if text.startswith("<"):
        return value < float(text[1:])
    digits = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10**-digits + 1e-9


def test_every_number_stands_in_the_row_that_it_names(page, three, tmp_path):
    three.to_csv(tmp_path / "metrics.csv", index=False)
    stored = read_metrics(tmp_path / "metrics.csv").set_index(list(KEYS))
    assert len(page.numbers) > 1000
    for attrs, text in page.numbers:
        key = json.loads(attrs["data-row"])
        row, names = stored.loc[tuple(key)], dict(zip(KEYS, key, strict=True))
        details = details_of(names["detail"], names["detail_value"])
        field = attrs["data-field"]
        if field in details:
            assert text == details[field]
        elif field == "seed":
            assert text == str(names["seed"])
        else:
            assert shown_as(row[field], text), (attrs, text)


def test_a_wrong_digit_would_be_seen():
    assert (
        shown_as(0.8014, "0.801")
        and not shown_as(0.8014, "0.802")
        and shown_as(-0.25, f"{MINUS}0.250")
    )
    assert (
        shown_as(0.0002, "<0.001")
        and not shown_as(0.002, "<0.001")
        and not shown_as(0.25, f"{MINUS}0.250")
    )


def test_no_number_is_typed_in(html):
    text = " ".join(
        Page(html[: html.index('<section id="provenance">')][html.index("<body>") :]).rest
    )
    for known in (
        r"AUPRO 0\.3",
        r"p below 0\.05",
        r"\bF1\b",
        r"(Table|Figure) A?\d+",
        "CVPR 2022",
        "ICPR 2020",
        "IJCV 2021",
        r"al\., 2024",
        "2026-01-31",
        "fedcba9876543210",
        "percentile 95",
        "excludes 0",
        "includes 0",
        r"\bL[12]\b",
        r"loss\.l1",
        r"in \[-1, 1\]",
        r"1 means all of it, and below 0",
        r"delta is 1 where",
        r"and 0 at chance",
        r"overlap is 0 where",
    ):
        text = re.sub(known, "", text)
    assert re.findall(r".{30}\d.{10}", text) == []


def test_settings_are_those_that_the_results_were_made_with(page):
    config = load_config("tiny").model_dump(mode="json")
    assert {attrs["data-setting"] for attrs, _ in page.settings} >= {
        "seed",
        "patchcore.coreset_ratio",
        "backbone.name",
        "autoencoder.networks.cnn.latent",
        "autoencoder.networks.vit.heads",
        "autoencoder.training.learning_rate",
        "autoencoder.loss.ssim",
        "autoencoder.scoring.aggregation",
    }
    for attrs, text in page.settings:
        value = config
        for part in attrs["data-setting"].split("."):
            value = value[part]
        assert text == (", ".join(map(str, value)) if isinstance(value, list) else str(value))


def test_settings_of_an_autoencoder_are_its_network_s_and_those_that_all_share(html):
    rows = {
        name: cells
        for name, cells in re.findall(
            r'<tr><th scope="row">([^<]+)</th>((?:<td>.*</td>)+)</tr>', html
        )
    }
    assert re.findall(r'data-setting="(.+?)"', rows["channels"]) == [
        "autoencoder.networks.cnn.channels"
    ]
    assert rows["channels"].endswith("<td>-</td>")  # the transformer has none
    assert max(map(list(rows).index, ("channels", "heads"))) < list(rows).index("loss.mse")
    for name in ("loss.mse", "training.epochs"):
        assert re.findall(r'data-setting="(.+?)"', rows[name]) == [f"autoencoder.{name}"] * 2
    assert "training.trackers" not in rows  # changes no score


def test_autoencoders_have_a_section_only_where_there_are_rows(html, tidy, bare, report):
    section = html[html.index('<section id="autoencoders">') : html.index('<section id="shift">')]
    assert '<a href="#autoencoders">' in html
    text = " ".join(Page(section).rest)
    assert all(
        words in text
        for words in (
            "CNN AE",
            "ViT AE",
            "pixel L2",
            "on clean test images",
            "clean validation images",
        )
    )
    row = ["reconstruction", "", "ae_cnn", "", "carpet", False, 42, "mse", "images", "good"]
    assert ">13906051<" in section and [
        text
        for attrs, text in Page(section).numbers
        if json.loads(attrs["data-row"]) == row and attrs["data-field"] == "value"
    ] == ["0.00214"]
    for table in (tidy, bare):
        other = report(table, {})
        assert (
            "#autoencoders" not in other
            and 'id="autoencoders"' not in other
            and "CNN AE" not in other
        )
        assert not any(
            attrs["data-setting"].startswith("autoencoder") for attrs, _ in Page(other).settings
        )


def test_the_same_input_gives_the_same_bytes_but_for_the_date(three, html, report):
    assert report(three) == html
    other = report(three, date="2027-12-31")
    changed = [
        line for line in difflib.ndiff(html.splitlines(), other.splitlines()) if line[0] in "+-"
    ]
    assert changed == [
        '- <p class="date">Written on 2026-01-31.</p>',
        '+ <p class="date">Written on 2027-12-31.</p>',
    ]


def test_the_page_stands_alone_and_can_be_read_aloud(page, html, pictures):
    addresses = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert addresses and all(
        address.startswith(("data:image/png;base64,", "#")) for address in addresses
    )
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags} and "url(" not in html
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == len(pictures) and all(
        attrs["alt"].startswith("What ") for attrs in images
    )
    assert {(attrs["width"], attrs["height"]) for attrs in images} == {
        ("960", "480")
    }  # 10 by 5 inches
    assert {attrs.get("lang") for tag, attrs in page.tags if tag == "html"} == {"en"}
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")
    anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {address[1:] for address in addresses if address.startswith("#")} <= anchors


def test_tables_and_figures_are_numbered_in_order(html):
    for kind in ("Table ", "Table A", "Figure "):  # A: what is folded away and not printed
        numbers = [int(n) for n in re.findall(rf"<b>{kind}(\d+)\.</b>", html)]
        assert numbers == list(range(1, len(numbers) + 1)) and numbers


def test_a_missing_family_is_said_in_one_sentence_and_nothing_is_invented(bare, report):
    html = report(bare, {})
    page = Page(html)
    text = " ".join(" ".join(page.rest).split())
    assert re.findall(r'<p class="absent">(.+) not part of this run\.</p>', html) == [
        "Counts of images are",
        "Paired differences of scenarios are",
        "A comparison of threshold rules is",
        "Conformal thresholds are",
        "Threshold transfer is",
        "A global model is",
        "Tables of errors are",
        "Refits with other seeds are",
    ]
    assert "There is one method in this run, so none is compared." in text
    assert {json.loads(attrs["data-row"])[0] for attrs, _ in page.numbers} == {
        "clean",
        "no_adaptation",
    }
    assert not re.search(r"\b(falls|rises|ranks better)\b", text)


def test_no_results_are_an_error_that_says_what_to_do(report):
    with pytest.raises(DataError, match="run make study"):
        report(as_table([]), {})
    with pytest.raises(DataError, match="run make study"):
        report(pd.DataFrame(columns=list(COLUMNS)), {})


def test_names_from_folders_cannot_break_the_page(bare, report):
    odd = '<b>"nut" & bolt</b>'
    page = Page(report(bare.replace({"category": {"carpet": odd}}), {}))
    assert any(json.loads(attrs["data-row"])[4] == odd for attrs, _ in page.numbers)
    assert odd in {text.strip() for text in page.rest}


def test_drawn_images_are_said_to_be_drawn(bare, html, report, views):
    real = views(bare)
    for stored in real.values():
        stored["provenance"]["config"]["data"]["source"] = "folder"
    assert "drawn by code" in html
    assert "drawn by code" not in report(bare, {}, stored=real)


def sentence(before, after, difference, low, high):
    values = {
        ("clean", ""): stated(before, 20),
        ("no_adaptation", ""): stated(after, 20),
        ("no_adaptation", "clean"): stated(difference, 20, low, high),
    }
    rows = [
        row
        for (scenario, against), entry in values.items()
        for row in to_rows(scenario, "padim", MACRO, 42, {"image_auroc": entry}, against=against)
    ]
    results = Results(as_table(rows))
    return plain(findings.change(results, "clean", "no_adaptation", "image_auroc"))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (
            (0.9, 0.7, -0.2, -0.3, -0.1),
            f"falls for PaDiM (0.900 to 0.700, difference {MINUS}0.200 [{MINUS}0.300, {MINUS}0.100]).",
        ),
        (
            (0.7, 0.9, 0.2, 0.1, 0.3),
            "rises for PaDiM (0.700 to 0.900, difference +0.200 [+0.100, +0.300]).",
        ),
        (
            (0.9, 0.85, -0.05, -0.1, 0.02),
            f"shows no change for PaDiM (0.900 to 0.850, difference {MINUS}0.050 [{MINUS}0.100, +0.020]).",
        ),
        ((0.9, 0.9, 0.0, 0.0, 0.0), "stays as it is for PaDiM (0.900)."),
        (
            (0.9, 0.7, -0.2, None, None),
            "is given without an interval, so that no change is claimed, for PaDiM (0.900 to "
            f"0.700, difference {MINUS}0.200).",
        ),
    ],
)
def test_words_follow_the_interval(numbers, words):
    assert sentence(*numbers) == f"The macro image AUROC {words}"


def test_methods_are_grouped_by_what_happens_to_them(tidy):
    chosen = tidy.scenario.eq("no_adaptation") & tidy.against.eq("clean") & tidy.method.eq("padim")
    mixed = tidy.assign(ci_high=tidy.ci_high.where(~chosen, 0.01))
    text = plain(
        findings.change(Results(mixed), "clean", "no_adaptation", "aupro", "Under the shift,")
    )
    assert re.match(
        r"Under the shift, the macro AUPRO 0.3 falls for PatchCore \(.+\); it shows no change for PaDiM \(",
        text,
    )


def plain(texts):
    return re.sub(r"<[^>]+>", "", " ".join(map(str, texts)))


def test_methods_are_told_apart_by_the_corrected_p_alone(tidy):
    text = plain(findings.comparisons(Results(tidy), ["clean"]))
    assert text == (
        "Scenario clean, PatchCore against PaDiM: PatchCore ranks better on carpet (difference +0.040 "
        "[+0.010, +0.070], Holm p 0.001); no difference is shown on hazelnut and zipper."
    )


def test_three_methods_are_compared_pair_by_pair(three):
    texts = [plain([text]) for text in findings.comparisons(Results(three), ["clean"])]
    assert [text.partition(":")[0] for text in texts] == [
        f"Scenario clean, {pair}"
        for pair in ("PatchCore against PaDiM", "PatchCore against CNN AE", "PaDiM against CNN AE")
    ]
    (level,) = findings.levels(Results(three), "clean", "image_auroc", "There,")
    assert re.fullmatch(
        r"There, the macro image AUROC is \S+ \S+ \S+ for PatchCore, \S+ \S+ \S+ for PaDiM and "
        r"\S+ \S+ \S+ for CNN AE\.",
        plain([level]),
    )


def test_broken_promises_are_those_whose_whole_interval_is_above(tidy):
    texts = findings.promises(Results(tidy), ["clean", "no_adaptation"])
    assert len(texts) == 4
    assert plain(texts[:1]).endswith("rate of 0.05 is not contradicted by any interval.")
    broken = plain(texts[2:3])
    assert (
        "is broken for PatchCore on carpet (0.350 [0.31, 0.39])" in broken
        and "PaDiM on zipper" in broken
    )


def test_an_f1_that_does_not_beat_the_trivial_one_is_named(tidy):
    clean = tidy.metric.eq("f1") & tidy.scenario.eq("clean") & tidy.detail.eq("")
    above = clean & ~(tidy.method.eq("padim") & tidy.category.eq("zipper"))
    raised = tidy.assign(ci_low=tidy.ci_low.mask(above, 0.99).mask(clean & ~above, 0.1))
    texts = [str(text) for text in findings.not_above_trivial(Results(raised))]
    assert texts[0] == "Clean: PaDiM on zipper."
    assert texts[1] == "No adaptation: PatchCore on every category; PaDiM on every category."


def test_degenerate_thresholds_of_the_deployed_rule_are_named(tidy):
    results = Results(tidy)
    assert findings.degenerate(results, "f1_optimal") == []
    assert findings.degenerate(results, "mad") == [
        "Clean: PaDiM on every category.",
        "No adaptation: PaDiM on every category.",
    ]


def test_the_weakest_type_is_the_lowest_observed(tidy):
    results = Results(tidy)
    names = {"scenario": "clean", "method": "padim", "category": "zipper"}
    chosen = results.where(metric="recall", detail="defect_type", **names)
    assert len(chosen) == 2
    lowest = min(chosen, key=lambda n: n.value)
    text = plain(findings.weakest_types(results, ["clean"])[1:])
    assert (
        f"{lowest.text('defect_type')} on zipper ({lowest.text()} [" in text
        and "of 8 images" in text
    )


def test_a_training_setting_of_a_network_s_own_stands_in_place_of_the_shared_one():
    chosen = load_config("tiny", {"autoencoder.networks.vit.training.epochs": 300}).model_dump(
        mode="json"
    )
    paths = [_setting_paths(chosen, method)["training.epochs"] for method in ("ae_vit", "ae_cnn")]
    assert paths == ["autoencoder.networks.vit.training.epochs", "autoencoder.training.epochs"]
