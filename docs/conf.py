"""Sphinx: `make docs` builds the site into build/docs and fails on any warning."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import blursynth  # noqa: E402

project = "Blursynth"
author = "the Blursynth authors"
copyright = "the Blursynth authors, MIT licence"
version = release = blursynth.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_title = f"Blursynth {release}"
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpicky = False

ELSEWHERE = {"../benchmarks/RESULTS.md": "results.md", "../README.md": "index.md", "README.md": "index.md"}
"""Pages that GitHub shows from where they stand, and the site under another name."""


def _links(app, name, source):
    """Relative links that leave docs/ lead to the site's copy of that page, or to plain text."""

    def target(found: re.Match[str]) -> str:
        text, path = found[1], found[2]
        page, _, anchor = path.partition("#")
        if page in ELSEWHERE:
            return f"[{text}]({ELSEWHERE[page]}{'#' + anchor if anchor else ''})"
        if name == "results":
            page = page.removeprefix("../docs/")
        here = (ROOT / "docs" / page).resolve()
        if here.exists() and here.is_relative_to(ROOT / "docs"):
            return f"[{text}]({page}{'#' + anchor if anchor else ''})"
        return f"`{page.removeprefix('../')}`" if not here.is_relative_to(ROOT / "docs") else found[0]

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(((?!https?:|#|mailto:)[^)\s]+)\)", target, source[0])


def setup(app):
    app.connect("source-read", _links)
    app.connect("include-read", lambda app, path, parent, source: _links(app, parent, source))
