"""The guide as a web site: `make docs` builds it with Sphinx.

This file owns the settings of Sphinx. It must never hold what a page can say itself.
"""

import re
import shutil
from pathlib import Path

import rsock

# Sphinx reads only what is below its folder. The notebooks are beside it, where Jupyter users look.
HERE = Path(__file__).parent
shutil.copytree(HERE.parent / "notebooks", HERE / "tour", dirs_exist_ok=True)

project = "rsock"
author = "the developers of rsock"
project_copyright = author
release = version = rsock.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "images"]

html_theme = "furo"
html_title = f"rsock {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = "_static/icon.svg"

# Names in docstrings stand in single backquotes, which is a link where the name is of this package.
default_role = "py:obj"
autodoc_member_order = "groupwise"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "inherited-members": True}

# Headings are link targets, as on the pages of a repository.
myst_heading_anchors = 4
# The tests run the notebooks, and the blocks of the pages.
nb_execution_mode = "off"


# A parameter of a docstring: "name: text", with further lines indented.
PARAMETER = re.compile(r"(\w+): (.+)")


def parameters_as_a_list(*event: object) -> None:
    """Turn the parameters of a docstring, which is written for a terminal, into a list."""
    lines = event[-1]
    assert isinstance(lines, list)
    found = []
    inside = False
    for line in lines:
        if match := PARAMETER.fullmatch(line):
            found += ["", f"``{match[1]}``", f"    {match[2]}"]
            inside = True
        elif inside and not line.startswith("    "):
            found += ["", line]
            inside = False
        else:
            found.append(line)
    lines[:] = found


def notebooks_in_the_site(_: object, page: str, source: list[str]) -> None:
    """Have the links to notebooks, which are right in the repository, lead to the copies."""
    up = "../" * page.count("/")
    source[0] = source[0].replace(f"({up}../notebooks/", f"({up}tour/")


def levels_of_captions(*event: object) -> None:
    """Give the captions of the list of pages a level: a screen reader needs that of a heading."""
    context = event[3]
    assert isinstance(context, dict)
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def setup(app: object) -> None:
    """Register what Sphinx calls."""
    # After furo, which makes the list.
    app.connect("html-page-context", levels_of_captions, priority=900)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", parameters_as_a_list)  # type: ignore[attr-defined]
    app.connect("source-read", notebooks_in_the_site)  # type: ignore[attr-defined]
