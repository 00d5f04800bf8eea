"""Sphinx configuration: MyST pages, stored notebooks, and a reference generated from `__all__`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import generated

from difmd._internal.version import __version__

project = "difmd"
author = "The difmd authors"
copyright = "The difmd authors, Apache License 2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_design",
]
exclude_patterns = ["_build", "README.md"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
suppress_warnings = [
    # Names that exist in `difmd` and in a package of it.
    "ref.python",
    # Notebooks carry no lexer for the output of other programs.
    "misc.highlighting_failure",
]

# Single backquotes in docstrings are names or code.
default_role = "py:obj"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88

html_theme = "sphinx_book_theme"
html_title = "difmd"
html_static_path = ["_static"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}


def setup(app):
    """Generate pages before Sphinx reads the folder, and leave fields out of the lists of members."""
    generated.write_all(Path(__file__).resolve().parent)
    app.connect("autodoc-skip-member", generated.is_field)
    # Before napoleon reads the docstring.
    app.connect("autodoc-process-docstring", generated.escape, priority=400)
