#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_event
short_description: Create events in graphite-web
version_added: 1.0.0
description:
  - Posts an event to graphite-web, unless it is there already. The render API draws events of a tag as lines over the
    whole height, with the target V(drawAsInfinite(events('deployment'\)\)).
  - An event with the same content is regarded as the same event if its time is O(when), or at most O(within) seconds before.
    Other events are not changed. graphite-web's API cannot delete events.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.web_api
options:
  what:
    description:
      - What has happened, in up to 255 characters.
    type: str
    required: true
  tags:
    description:
      - Tags by which graphs and people find it, of up to 50 characters each, without space, comma or double
        quote. Their order does not matter.
    type: list
    elements: str
    default: []
  data:
    description:
      - More about it, of any length.
    type: str
    default: ''
  when:
    description:
      - Unix time of it in seconds. Without it, now, by the clock of the host that the module runs on.
    type: int
  within:
    description:
      - How many seconds before O(when) an event that says the same counts as this one. With V(0), a run without O(when)
        posts another event each second; with V(3600), only if there was none in the last hour.
    type: int
    default: 0
attributes:
  check_mode:
    description: Looks for the event; posts nothing.
    support: full
  diff_mode:
    description: Shows an event that is posted.
    support: full
notes:
  - graphite-web 1.1.10 does not draw a picture whose time range ends in the very second of one of its events; it answers 500.
  - Hosts that deploy together post together, too. Use C(run_once), or name the host in O(what) or O(data).
"""

EXAMPLES = r"""
- name: Mark a deployment on the graphs, once a release
  metricstack.graphite.graphite_event:
    url: http://graphite.example.org
    what: Release {{ shop_release }}
    tags: [deployment, shop]
    data: by {{ lookup('ansible.builtin.env', 'USER') }}
    within: 604800
  run_once: true

- name: Mark the end of the maintenance
  metricstack.graphite.graphite_event:
    what: Maintenance is over
    tags: [maintenance]
    when: 1767225600
"""

RETURN = r"""
event:
  description: The event, as graphite-web has it (in check mode, would have it).
  returned: success
  type: dict
  contains:
    id:
      description: Its number in graphite-web, which shows it at C(/events/ID/); left out if it is not there yet.
      type: int
    what:
      description: What has happened.
      type: str
    tags:
      description: Its tags.
      type: list
      elements: str
    data:
      description: More about it.
      type: str
    when:
      description: Unix time of it in seconds.
      type: int
"""

import json
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.api import WEB_API_ARGUMENT_SPEC, WebApi
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.events import event_problems, events_query, newest_like


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **WEB_API_ARGUMENT_SPEC,
            "what": {"type": "str", "required": True},
            "tags": {"type": "list", "elements": "str", "default": []},
            "data": {"type": "str", "default": ""},
            "when": {"type": "int"},
            "within": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    when, within = module.params["when"], module.params["within"]
    wanted = {
        "what": module.params["what"],
        "tags": sorted(set(module.params["tags"])),
        "data": module.params["data"],
        "when": int(time.time()) if when is None else when,
    }
    problems = event_problems(wanted, within)
    if problems:
        module.fail_json(msg="\n".join(problems))
    api = WebApi(module)

    def stored() -> dict | None:
        return api.read(lambda answer: newest_like(answer, wanted), f"/events/get_data?{events_query(wanted, within)}")

    event = stored()
    differs = event is None
    if differs and not module.check_mode:
        api.ask("/events/", json.dumps(wanted), "application/json")
        event = stored()
        if event is None:
            module.fail_json(
                msg=f"{module.params['url']} took the event, but does not show it. Give an address that does not redirect; if"
                " graphite-web has FORCE_LOWERCASE_TAGS, give tags in lower case.",
            )
    event = wanted if event is None else event
    module.exit_json(changed=differs, event=event, diff={"before": {} if differs else event, "after": event})


if __name__ == "__main__":
    main()
