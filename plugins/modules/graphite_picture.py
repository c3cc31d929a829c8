#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_picture
short_description: Save or return a picture that graphite-web renders
version_added: 1.0.0
description:
  - Requests a picture of series from the render API of graphite-web, and saves the picture in a file on the host that the
    module runs on, or returns it.
  - Fails if the answer is not a picture, such as a login page; the file is then not changed.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.render
  - metricstack.graphite.web_api
  - ansible.builtin.files
options:
  options:
    description:
      - Other parameters of the render API, such as C(title), C(width), C(height), C(yMin), C(areaMode) and C(lineMode).
    type: dict
    default: {}
  format:
    description:
      - Format in which graphite-web draws the picture.
    type: str
    choices: [png, svg, pdf]
    default: png
  dest:
    description:
      - Absolute path of the file to keep it in. The directory must be there. Without it, the picture is returned.
    type: path
attributes:
  check_mode:
    description: Lets graphite-web draw, and writes nothing.
    support: full
  diff_mode:
    description: Shows how many bytes of the file were replaced, and its attributes.
    support: partial
notes:
  - A picture changes whenever its time range moves or points arrive. One of the past does not.
  - A target that matches nothing is not an error; graphite-web leaves it out, and if nothing is left, draws the text "No
    Data". Use M(metricstack.graphite.graphite_render_info) to detect this.
"""

EXAMPLES = r"""
- name: Save a picture of the last day
  metricstack.graphite.graphite_picture:
    url: http://graphite.example.org
    targets:
      - alias(sumSeries(stats.counters.shop.*.requests.rate), 'requests')
      - alias(drawAsInfinite(events('deployment', 'shop')), 'deployments')
    from: midnight
    options:
      title: Requests per second
      width: 960
      height: 420
      lineMode: connected
    dest: /srv/reports/requests.png
    mode: "0644"
"""

RETURN = r"""
content:
  description: The picture in Base64, as M(ansible.builtin.slurp) returns files.
  returned: success, without O(dest)
  type: str
dest:
  description: Path of the file.
  returned: success, with O(dest)
  type: str
  sample: /srv/reports/requests.png
"""

import base64
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.api import FORM, WEB_API_ARGUMENT_SPEC, WebApi
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.render import (
    PICTURE_BEGINNINGS,
    RENDER_ARGUMENT_SPEC,
    picture_problems,
    render_query,
)


def keep(module: AnsibleModule, picture: bytes) -> None:
    """Write the file if it differs, and end the module."""
    dest = module.params["dest"]
    current = None
    if os.path.exists(dest):
        with open(dest, "rb") as stream:
            current = stream.read()
    changed = current != picture
    diff: list[dict] = []
    if changed:
        sizes = ["" if content is None else f"{len(content)} bytes\n" for content in (current, picture)]
        diff.append({"before_header": dest, "after_header": dest, "before": sizes[0], "after": sizes[1]})
        if not module.check_mode:
            descriptor, candidate = tempfile.mkstemp(dir=module.tmpdir)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(picture)
            module.atomic_move(candidate, dest)
    if os.path.exists(dest):
        attributes: dict = {}
        changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(module.params, dest), changed, attributes)
        if attributes:
            diff.append({"before_header": dest, "after_header": dest, **attributes})
    module.exit_json(changed=changed, dest=dest, diff=diff)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **WEB_API_ARGUMENT_SPEC,
            **RENDER_ARGUMENT_SPEC,
            "options": {"type": "dict", "default": {}},
            "format": {"type": "str", "choices": list(PICTURE_BEGINNINGS), "default": "png"},
            "dest": {"type": "path"},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    dest, form = module.params["dest"], module.params["format"]
    problems = picture_problems(module.params)
    if dest is not None and (not os.path.isabs(dest) or os.path.isdir(dest) or not os.path.isdir(os.path.dirname(dest))):
        problems.append(f"dest is {dest}; give the absolute path of a file, in a directory that is there.")
    if problems:
        module.fail_json(msg="\n".join(problems))
    api = WebApi(module)
    picture = api.ask("/render", render_query(module.params, form, module.params["options"]), FORM)
    if not picture.startswith(PICTURE_BEGINNINGS[form]):
        api.refuse("/render", f"no {form.upper()} begins with {picture[:60]!r}")
    if dest is not None:
        keep(module, picture)
    module.exit_json(changed=False, content=base64.b64encode(picture).decode())


if __name__ == "__main__":
    main()
