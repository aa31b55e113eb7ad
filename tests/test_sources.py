"""Which code makes a thing: what a change touches, and what it leaves alone."""

import ast
import shutil
from importlib.metadata import version

import pytest

from nbhelpers.methods import METHODS
from nbhelpers.runtime import ROOT
from nbhelpers.sources import BOUNDARY, PACKAGE, code_of


@pytest.fixture
def package(tmp_path):
    """A copy of the package, to change."""
    return shutil.copytree(PACKAGE, tmp_path / "nbhelpers", ignore=lambda *_: {"__pycache__"})


#: What makes each kind of artefact: the modules that ``Study`` and the analyses name.
MAKERS = {
    "shifted twins": ("data.shift.twins",),
    "PatchCore": ("models.patchcore.detector",),
    "PaDiM": ("models.padim",),
    "ae_cnn": ("models.autoencoders.networks.cnn", "models.autoencoders.detector"),
    "ae_vit": ("models.autoencoders.networks.vit", "models.autoencoders.detector"),
    "cells": ("evaluation.cell",),
    "differences": ("analyses.differences",),
    "reconstruction": ("analyses.reconstruction",),
    "figures": ("report.build",),
}
DETECTORS = {"PatchCore", "PaDiM", "ae_cnn", "ae_vit"}


def change(package, module: str, name: str) -> set[str]:
    """Give a top-level constant of a module another value; which makers have other code then."""
    before = {kind: code_of(*modules, package=package) for kind, modules in MAKERS.items()}
    copy = shutil.copytree(package, package.with_name("changed") / "nbhelpers")
    path = copy.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            node.value = ast.Constant(0.123)
            break
    else:
        raise AssertionError(f"{module} has no constant {name}")
    path.write_text(ast.unparse(tree))
    after = {kind: code_of(*modules, package=copy) for kind, modules in MAKERS.items()}
    return {kind for kind in MAKERS if after[kind]["code"] != before[kind]["code"]}


def test_a_metric_s_constant_touches_what_measures_and_no_detector(package):
    touched = change(package, "evaluation.metrics", "RATE_METRICS")
    assert {"cells", "differences"} <= touched and not touched & {*DETECTORS, "shifted twins"}


def test_patchcore_s_constant_touches_patchcore_alone_among_the_detectors(package):
    touched = change(package, "models.patchcore.coreset", "BLOCK_ROWS")
    assert touched & DETECTORS == {"PatchCore"} and "cells" not in touched


def test_a_network_s_file_touches_that_network(package):
    path = package / "models/autoencoders/networks/vit.py"
    before = {kind: code_of(*modules, package=package) for kind, modules in MAKERS.items()}
    changed = shutil.copytree(package, package.with_name("changed") / "nbhelpers")
    path = changed / "models/autoencoders/networks/vit.py"
    path.write_text(path.read_text() + "\nANOTHER = 1\n")
    after = {kind: code_of(*modules, package=changed) for kind, modules in MAKERS.items()}
    assert {kind for kind in DETECTORS if after[kind] != before[kind]} == {"ae_vit"}


def test_a_colour_touches_figures_alone(package):
    assert change(package, "figures.style", "DPI") == {"figures"}


def test_the_shift_s_constant_touches_the_twins_alone(package):
    assert change(package, "data.shift.apply", "REFERENCE_SIZE") == {"shifted twins"}


def test_comments_docstrings_and_layout_are_not_code(package):
    before = code_of("evaluation.metrics", package=package)
    copy = shutil.copytree(package, package.with_name("changed") / "nbhelpers")
    path = copy / "evaluation/metrics.py"
    tree = ast.parse(path.read_text())
    tree.body[0].value.value = "Another docstring."
    path.write_text("# a comment\n\n" + ast.unparse(tree))
    assert code_of("evaluation.metrics", package=copy) == before


def test_libraries_are_those_that_are_used_with_their_versions():
    libraries = code_of("evaluation.metrics")["libraries"]
    assert libraries["scikit-learn"] == version("scikit-learn") and "torch" not in libraries
    assert "torch" in code_of("models.padim")["libraries"]


def test_functions_count_by_their_source():
    def one():
        return 1

    def two():
        return 2

    name = "test_functions_count_by_their_source.<locals>"
    first = code_of(functions=(one,))["code"][f"{name}.one()"]
    assert first != code_of(functions=(two,))["code"][f"{name}.two()"]


def test_every_maker_and_boundary_is_there():
    for row in METHODS.values():
        assert code_of(f"models.{row.class_path.partition(':')[0]}")["code"]
    for name in BOUNDARY:
        assert (PACKAGE / name.replace(".", "/")).is_dir() or (
            PACKAGE / f"{name.replace('.', '/')}.py"
        ).is_file()
    with pytest.raises(ValueError, match="no file for 'evaluation.nothing'"):
        code_of("evaluation.nothing")
    assert PACKAGE == ROOT / "nbhelpers"
