# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The documentation as a site, built by script/docsite from the pages of the repository and from what antsibull-docs writes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from docutils import nodes

project = "metricstack.graphite"
author = "metricstack maintainers"
project_copyright = author
extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinx_copybutton"]

# Every reference has to lead somewhere, and links to headings are those of the forge.
nitpicky = True
myst_heading_anchors = 6

# README.md is the first page, together with the navigation in index.md.
exclude_patterns = ["README.md"]
REPOSITORY = yaml.safe_load((Path(__file__).parents[2] / "galaxy.yml").read_text())["repository"]

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_title = project
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False

# A command is copied without its prompt, and without what it prints.
copybutton_prompt_text = r"(?:[\w.]+)?\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

ANSIBLE = "https://docs.ansible.com/ansible/latest"
ANSIBLES_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def adapt(app, page, source):
    """Lead links to README.md to the first page and those to examples to the forge, show the picture without the forge, and leave out the
    contents that the theme shows.
    """
    if page == "index":
        source[0] = (Path(app.srcdir) / "README.md").read_text().replace(f"]({REPOSITORY}/raw/main/", "](") + source[0]
    if page == "examples/README":
        source[0] = re.sub(r"\]\((\w+)/\)", rf"]({REPOSITORY}/tree/main/examples/\1)", source[0])
    if page.startswith("collections/"):
        source[0] = re.sub(r"(?m)^\.\. contents::\n(?:   .*\n)*", "", source[0])
    else:
        source[0] = re.sub(r"(\]\((?:\.\./)*)README\.md(?=[)#])", r"\1index.md", source[0])


def links_to_ansible(_app, _environment, reference, content):
    """Resolve references to Ansible's own documentation, of which a build without the network has no index."""
    target = reference["reftarget"]
    module = re.match(r"ansible_collections\.ansible\.builtin\.(\w+_module)(?:__(.*))?$", target)
    if module:
        page = f"collections/ansible/builtin/{module[1]}.html" + (f"#{module[2]}" if module[2] else "")
    else:
        page = ANSIBLES_PAGES.get(target)
    if page is None:
        return None
    return nodes.reference("", "", content.deepcopy(), internal=False, refuri=f"{ANSIBLE}/{page}")


def setup(app):
    app.connect("source-read", adapt)
    app.connect("missing-reference", links_to_ansible)
