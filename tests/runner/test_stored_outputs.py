"""The comparison of stored outputs: exact, but for a trained network's numbers, and those within
their tolerance.
"""

import pytest

from nbhelpers.runner.stored_outputs import SPREAD, settle

LEVELS = """\
metric                    image_auroc       ece
method    category
ae_cnn    carpet    0.67 [0.45, 0.88]      0.17
          macro     0.63 [0.55, 0.76]      0.12
patchcore carpet    0.93 [0.79, 1.00]      0.21
          macro     0.95 [0.88, 0.99]      0.14
"""
TESTS = """\
metric                       image_auroc  p_delong_holm
method             category
padim - ae_cnn     carpet           0.28           0.04
patchcore - padim  carpet          -0.02           1.00
"""


def same(new: str, stored: str, tagged: bool = False) -> bool:
    return settle(new, stored, tagged) == stored


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.67 [0.45, 0.88]", "0.46 [0.30, 0.80]"),  # half of its interval's width is 0.215
        ("0.63 [0.55, 0.76]", "0.51 [0.55, 0.76]"),  # a line below belongs to the method above it
        ("0.17", "0.31"),
    ],
)
def test_a_trained_number_within_its_tolerance_agrees(old, new):
    assert same(LEVELS.replace(old, new), LEVELS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.67 [0.45, 0.88]", "0.41 [0.45, 0.88]"),
        ("0.67 [0.45, 0.88]", "0.67 [0.19, 0.88]"),
        (
            "0.63 [0.55, 0.76]",
            "0.37 [0.55, 0.76]",
        ),  # its half width, 0.105, is less than the spread of decimals
        ("0.17", "0.43"),
        ("0.93 [0.79", "0.92 [0.79"),
        ("0.95 [0.88", "0.94 [0.88"),
        ("0.95 [0.88", "0.95 [0.82"),  # a bound may move by 0.05
        ("0.14", "0.15"),
        ("carpet    0.67", "zipper    0.67"),
    ],
)
def test_any_other_difference_is_found(old, new):
    assert not same(LEVELS.replace(old, new), LEVELS)


def test_a_bound_of_an_exact_value_may_move_a_little():
    assert same(LEVELS.replace("0.95 [0.88, 0.99]", "0.95 [0.83, 1.00]"), LEVELS)


def test_rows_that_are_gone_or_more_are_found():
    assert not same(LEVELS[: LEVELS.rindex("patchcore")], LEVELS)
    assert not same(LEVELS + "padim     carpet    0.95 [0.84, 1.00]      0.10\n", LEVELS)


def test_wider_columns_are_no_difference():
    for method in ("0.67 [0.45, 0.88] ", "0.93 [0.79, 1.00] "):
        assert same(LEVELS.replace(method, method.replace(" [", "  [").rstrip()), LEVELS)


def test_p_values_may_jump_where_a_trained_network_takes_part():
    jumped = TESTS.replace("0.04", "0.88")
    assert same(jumped, TESTS) and not same(TESTS.replace("0.04", "1.88"), TESTS)
    corrected = TESTS.replace("1.00", "0.40")
    assert not same(corrected, TESTS) and same(corrected, TESTS, tagged=True)
    assert not same(TESTS.replace("-0.02", "-0.03"), TESTS, tagged=True)


def test_a_tag_loosens_lines_that_name_no_method():
    stored, new = (
        "carpet: trained on 22 images; the best was 12\n",
        "carpet: trained on 22 images; the best was 15\n",
    )
    assert same(new, stored, tagged=True) and not same(new, stored)
    assert not same(new.replace("15", "16"), stored, tagged=True)  # counts may differ by three
    assert not same(new.replace("carpet", "zipper"), stored, tagged=True)


@pytest.mark.parametrize(
    ("stored", "allowed", "wrong"),
    [
        ("0.50", 0.5 + SPREAD["share"], 0.51 + SPREAD["share"]),
        ("40.0", 50.0, 50.1),
        ("-2.00", -2.5, -2.51),
    ],
)
def test_tolerance_grows_with_the_number(stored, allowed, wrong):
    line = "CNN AE: {}"
    assert same(line.format(f"{allowed:.2f}"), line.format(stored))
    assert not same(line.format(f"{wrong:.2f}"), line.format(stored))


def test_only_a_trained_network_may_have_another_verdict():
    said = "  The macro F1 falls for {} (0.60 to 0.50, difference -0.10 [-0.19, -0.01]).\n"
    other = said.replace("falls for", "shows no change for").replace("-0.01", "+0.01")
    assert same(other.format("CNN AE"), said.format("CNN AE"))
    assert not same(other.format("PaDiM"), said.format("PaDiM"))
    assert not same(said.format("CNN AE").replace("to", "or"), said.format("CNN AE"))


def test_names_are_whole_words():
    assert not same("mae_cnn 0.50\n", "mae_cnn 0.51\n") and same("ae_cnn 0.50\n", "ae_cnn 0.51\n")


def test_a_share_of_three_images_may_move_by_one_of_them():
    table = "method  n   ks\nae_cnn  3 0.25\nae_cnn 12 0.25\npadim   3 0.25\n"
    assert same(table.replace("3 0.25\nae", "3 0.58\nae"), table)
    assert not same(table.replace("3 0.25\nae", "3 0.59\nae"), table)
    assert not same(table.replace("12 0.25", "12 0.51"), table)
    assert not same(table.replace("padim   3 0.25", "padim   3 0.26"), table)
