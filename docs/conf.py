"""Settings of the documentation site: Sphinx with MyST-NB, offline, from pip alone.

The source folder is the project's root, so that a link between the README, these pages and the
notebooks is the same link on the site and in the repository. The notebooks are shown as they are
stored; none is executed here.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from nbhelpers import __version__  # noqa: E402, the line above finds it

project = "Anomaly detectors under a domain shift"
author = "the authors of the study"
project_copyright = "the authors of the study; MIT licence"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_extension"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "notebooks/*.ipynb",
    "notebooks/README.md",
    "configs/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
# folders that Sphinx would walk through in search of pages
exclude_patterns = [
    ".git",
    ".venv",
    ".snakemake",
    "data",
    "outputs",
    "nbhelpers",
    "scripts",
    "tests",
    "docs/_build",
    "**/.ipynb_checkpoints",
]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
# a link to a file that is no page of the site (a module, a configuration) leads to the file itself
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # those of other libraries have a markup of their own
autodoc_default_options = {"members": True, "show-inheritance": True}
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"  # a browser draws it by itself: no script is fetched
