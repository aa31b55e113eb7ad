"""Which code makes an artefact: a digest of each module that its maker reaches, and library versions.

A stored result must not survive a change of the code that made it, and this must not depend on a
version number that somebody raises by hand. So the recipe of each artefact holds what ``code_of``
gives: a hash of the source, without comments and docstrings, of the modules that its maker starts
from and of all modules of this package that they import; and the version of each library that any
of them imports.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent

#: Modules that decide no number: what they pass on (settings, paths, names) is in the recipe itself,
#: so the search for imports stops at them.
BOUNDARY = (
    "config",
    "errors",
    "files",
    "methods",
    "runtime",
    "sources",
    "study",
    "models.factory",
    "models.autoencoders.training.trackers",
)

#: The libraries that compute: the name of the import, and the package that provides it.
LIBRARIES = {
    "PIL": "pillow",
    "albumentations": "albumentations",
    "anomalib": "anomalib",
    "cv2": "opencv-python-headless",
    "diffusers": "diffusers",
    "kornia": "kornia",
    "lightning": "lightning",
    "numpy": "numpy",
    "optuna": "optuna",
    "pandas": "pandas",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
}


def code_of(
    *modules: str, functions: tuple[Callable[..., Any], ...] = (), package: Path = PACKAGE
) -> dict[str, dict[str, str]]:
    """Hashes of the code, and versions of the libraries, that take part in making something.

    Args:
        modules: Names of the modules to start from, below ``nbhelpers``, for example
            ``evaluation.cell``.
        functions: Functions and methods of other modules that take part; their imports are not
            followed.
        package: The folder of the package.

    Returns:
        ``code`` maps each reached module and each function to its hash (16 hex digits);
        ``libraries`` maps each imported library to its version.

    Raises:
        ValueError: A module does not exist.
    """
    code, libraries = _code_of(modules, functions, package)
    return {"code": dict(code), "libraries": dict(libraries)}


@cache
def _code_of(
    modules: tuple[str, ...], functions: tuple[Callable[..., Any], ...], package: Path
) -> tuple[dict[str, str], dict[str, str]]:
    code: dict[str, str] = {}
    libraries: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in code:
            continue
        code[name], imported, used = _read(name, package)
        libraries |= used
        waiting += [other for other in imported if not _is_boundary(other)]
    for function in functions:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        code[f"{function.__qualname__}()"] = _hash(tree)
    versions = {name: installed_version(name) for name in sorted(libraries)}
    return dict(sorted(code.items())), versions


def installed_version(package: str) -> str:
    """The version of an installed package, or ``not installed``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _is_boundary(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in BOUNDARY)


@cache
def _read(name: str, package: Path) -> tuple[str, tuple[str, ...], frozenset[str]]:
    """A module's hash, the modules of the package that it imports, and its libraries."""
    path = _file(name, package)
    if path is None:
        raise ValueError(f"expected a module of {package.name}, found no file for '{name}'")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: dict[str, None] = {}
    libraries = set()
    for node in _imports(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:  # a name that is imported from a package may be a module
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for full in names:
            top, _, inner = full.partition(".")
            if top == package.name and inner and _file(inner, package):
                imported[inner] = None
            elif top in LIBRARIES:
                libraries.add(LIBRARIES[top])
    return _hash(tree), tuple(imported), frozenset(libraries)


def _file(name: str, package: Path) -> Path | None:
    """The file of a module; None for a package, whose ``__init__`` only says what it holds."""
    path = package.joinpath(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import, also inside functions, except those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _imports(node)


def _hash(tree: ast.AST) -> str:
    """Hash (16 hex digits) of the code without its docstrings, comments and layout."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        text = first.value if isinstance(first, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            text.value = ""
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]
