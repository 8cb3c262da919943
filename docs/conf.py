"""Sphinx: how docs/ becomes a site."""

import re
from pathlib import Path
from typing import Any

import td
from td.evaluate.page import write_page

project = "td"
author = "The td authors"
version = release = td.__version__
extensions = [
    "myst_nb",  # pages in Markdown; those with a Jupyter header are executed
    "sphinx.ext.autodoc",  # the API from its docstrings
    "sphinx.ext.napoleon",  # which are in Google's style
    "sphinx.ext.viewcode",  # with a link to the source
]
exclude_patterns = ["_build", "api/README.md"]  # the reference as a code host shows it
default_role = "code"  # single backticks in docstrings

html_theme = "sphinx_book_theme"
html_title = "td: targeted dropout in JAX"
html_theme_options = {
    "use_download_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # one field to search in is enough
    "footer_content_items": [],
}
html_static_path = ["_static"]
html_css_files = ["td.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = "force"  # a page that shows what the code printed last month is wrong without a warning
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "error"  # a warning in a tutorial is an error, like everywhere else
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False
napoleon_use_ivar = True  # the fields of a NamedTuple as one list


def link_names(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Link names of td in docstrings; Sphinx reports a link that leads nowhere."""
    lines[:] = [re.sub(r"(?<!`)`(td(\.\w+)+)`(?!`)", r":py:obj:`\1`", line) for line in lines]


def link_files(app: Any, page: str, source: list[str]) -> None:
    """Offer Markdown files outside of docs, which are no pages of the site, as downloads."""
    source[0] = re.sub(r"\]\((\.\./(?:results|examples)/[^)]+\.md)\)", r"](path:\1)", source[0])


def link_results(app: Any, path: Any, page: str, source: list[str]) -> None:
    """Offer files next to an included page as downloads; `:relative-docs: .` finds them from the page."""
    source[0] = re.sub(r"\]\((?!https?:|\.\./)([^)]+)\)", r"](path:./\1)", source[0])


def write_results(app: Any, error: Any) -> None:
    """Write the page of all published curves next to the page of results, from the result files."""
    if app.builder.format == "html" and not error:
        write_page([Path(__file__).parents[1] / "results"], Path(app.outdir) / "curves.html")


def setup(app: Any) -> None:
    """Register all before napoleon reads a docstring and before a page is parsed."""
    app.connect("autodoc-process-docstring", link_names, priority=100)
    app.connect("source-read", link_files)
    app.connect("include-read", link_results)
    app.connect("build-finished", write_results)
