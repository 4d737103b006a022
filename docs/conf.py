"""Sphinx configuration; `make docs` builds with warnings as errors."""

import recap

project = "recap"
author = "the recap authors"
copyright = "the recap authors, Apache-2.0"
release = recap.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"recap {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    "ignore-module-all": True,  # a name is documented where it is defined, not where it is offered
}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields are listed once, not once more as attributes

# Two classes may have a field of one name; a mention of the name is a word, not a reference.
suppress_warnings = ["ref.python"]
