"""Sphinx: the pages of this folder as a site, without a request to any other host."""

from __future__ import annotations

import importlib.metadata

project = "normdoctor"
author = "The normdoctor developers"
project_copyright = author
release = importlib.metadata.version("normdoctor")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"normdoctor {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
