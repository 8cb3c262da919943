"""Sphinx: how docs/ becomes a site."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "td"
author = "the authors of td"
version = release = installed("td")
extensions = [
    "myst_nb",  # pages in Markdown; those with a Jupyter header are executed
    "sphinx.ext.autodoc",  # the API from its docstrings
    "sphinx.ext.napoleon",  # which are in Google's style
    "sphinx.ext.viewcode",  # with a link to the source
    "td_markdown",  # and have code and tables in Markdown
    "td_mathml",  # formulas
]
exclude_patterns = ["_build"]

html_math_renderer = "mathml"
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

myst_enable_extensions = ["dollarmath", "colon_fence"]
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
