#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Manage a set of configuration files that are validated together
version_added: 1.0.0
description:
  - Manages a set of files, directories and links in one call, for which M(ansible.builtin.copy) and M(ansible.builtin.file) need
    one or two calls each.
  - All new contents are validated before the first file is replaced, so that an error in one file leaves all files unchanged.
author:
  - metricstack maintainers (@metricstack)
options:
  files:
    description:
      - Files, directories and links, which are written in this order once all contents are valid.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Absolute path on the host. The directory that it is in must be there or be described before it, unless O(files[].parents)
            is set.
        type: path
        required: true
      state:
        description:
          - What is at the path. V(file) and V(link) replace a file or link that is there; a directory is in the way of both,
            and a link in the way of V(directory). V(absent) removes a directory only if all that it holds is described as
            absent before it.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description:
          - Content of a file. Required for V(state=file). Shown by C(--diff), so that secrets do not belong here.
        type: str
      target:
        description:
          - Where a link points to; relative to the directory of the link, or absolute. Required for V(state=link).
        type: str
      owner:
        description:
          - User that owns the file or directory. If left out, that of an existing file stays.
        type: str
      group:
        description:
          - Group that owns the file or directory. If left out, that of an existing file stays.
        type: str
      mode:
        description:
          - Permissions of the file or directory, as M(ansible.builtin.file) takes them. If left out, those of an existing
            file stay.
        type: raw
      parents:
        description:
          - Whether the directories above the path that are missing are made. They belong to root, with the mode V(0755).
        type: bool
        default: false
        version_added: 2.0.0
      validate:
        description:
          - Command that ends with 0 if the content in the file C(%s) is good. Not run in check mode, in which it may not be
            installed yet.
        type: str
      backup:
        description:
          - Whether to keep the old content of a file that is replaced, beside it and with the time in its name.
        type: bool
        default: false
  validate:
    description:
      - Command that ends with 0 if the set is good. C(%s) is a temporary directory that holds the files and links of the set at their
        paths, such as C(%s/etc/carbon/carbon.conf), for files that are good only beside each other.
      - Runs once, after O(files[].validate) of each file, and only if the content, the target or the state of one of the set changes. Not
        run in check mode.
    type: str
    version_added: 2.0.0
attributes:
  check_mode:
    description: Reports what would change; changes nothing. Owners that do not exist yet are taken for a change.
    support: full
  diff_mode:
    description: Shows each content, target, owner and mode that changes.
    support: full
notes:
  - M(ansible.builtin.template) with C(validate) tests one file at a time, and has replaced the first when the second one is refused. Here,
    either all files of a set are replaced or none. A set also takes one call to the host, which is what most of the time of a run goes
    into.
  - No handler is needed either; M(metricstack.graphite.service_current) finds out what has read the files before they were changed.
seealso:
  - module: metricstack.graphite.service_current
  - module: ansible.builtin.template
  - module: ansible.builtin.file
"""

EXAMPLES = r"""
- name: Configure carbon
  metricstack.graphite.config_files:
    files:
      - path: /etc/carbon/carbon.conf
        content: "{{ lookup('ansible.builtin.template', 'carbon.conf.j2') }}"
        mode: "0644"
        backup: true
      - path: /var/lib/graphite/whisper
        state: directory
        owner: _graphite
        group: _graphite
        mode: "0755"
      - path: /etc/systemd/system/carbon-cache.service
        state: link
        target: /dev/null

- name: Provide a directory for the application on another file system, and the directories above it
  metricstack.graphite.config_files:
    files:
      - path: /srv/graphite/whisper
        state: directory
        parents: true
        owner: _graphite
        group: _graphite
        mode: "0755"

- name: Move two sites of Apache, which must not listen on the same port in between
  metricstack.graphite.config_files:
    files:
      - path: /etc/apache2/sites-available/one.conf
        content: "{{ lookup('ansible.builtin.template', 'one.conf.j2') }}"
      - path: /etc/apache2/sites-available/two.conf
        content: "{{ lookup('ansible.builtin.template', 'two.conf.j2') }}"
    validate: /usr/local/sbin/test-sites %s/etc/apache2
"""

RETURN = r"""
changed_paths:
  description: Paths whose content, kind, owner or mode was changed (in check mode, would be), with those of directories that were made.
  returned: success
  type: list
  elements: str
  sample: [/etc/carbon/carbon.conf]
backup_files:
  description: Paths of the backup copies, by the path of the file.
  returned: success
  type: dict
  sample: {/etc/carbon/carbon.conf: /etc/carbon/carbon.conf.1234.2026-01-02@03:04:05~}
"""

import grp
import os
import pwd
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

FILE_SPEC = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
    "content": {"type": "str"},
    "target": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
    "parents": {"type": "bool", "default": False},
    "validate": {"type": "str"},
    "backup": {"type": "bool", "default": False},
}


def kind_of(path: str) -> str:
    """Return what is at ``path``: ``link``, ``directory``, ``file`` or ``absent``."""
    if os.path.islink(path):
        return "link"
    if os.path.isdir(path):
        return "directory"
    return "file" if os.path.lexists(path) else "absent"


def text_at(path: str) -> str:
    """Return what a diff shows of ``path``: the content of a file, the target of a link, or nothing."""
    kind = kind_of(path)
    if kind == "link":
        return f"-> {os.readlink(path)}\n"
    if kind != "file":
        return ""
    with open(path, "rb") as stream:
        return stream.read().decode("utf-8", "surrogateescape")


def wanted_text(item: dict) -> str:
    """Return what ``text_at`` is to return once the item is in its state."""
    return {"file": item["content"], "link": f"-> {item['target']}\n"}.get(item["state"], "")


def missing_parents(path: str) -> list[str]:
    """Return the directories above ``path`` that are missing, the highest first."""
    missing: list[str] = []
    directory = os.path.dirname(path)
    while not os.path.lexists(directory):
        missing.insert(0, directory)
        directory = os.path.dirname(directory)
    return missing


class FileSet:
    """The files of one call; what is read here is compared, what is compared is changed."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self.changed_paths: list[str] = []
        self.backup_files: dict[str, str] = {}
        self.diff: list[dict] = []

    def refuse_obstacles(self, items: list[dict]) -> None:
        gone: set[str] = set()
        for item in items:
            path, kind = item["path"], kind_of(item["path"])
            if not os.path.isabs(path):
                self._module.fail_json(msg=f"{path} is not absolute; give the whole path.")
            if item["state"] == "absent":
                rest = {os.path.join(path, name) for name in os.listdir(path)} - gone if kind == "directory" else set()
                if rest:
                    self._module.fail_json(msg=f"{path} is a directory that holds {min(rest)}; remove that first.")
                gone.add(path)
            elif kind == "directory" and item["state"] != "directory":
                self._module.fail_json(msg=f"{path} is a directory, where state={item['state']} is wanted; move it away.")
            # A link that another user can create would change the owner of its target.
            if kind in ("file", "link") and item["state"] == "directory":
                self._module.fail_json(msg=f"{path} is a {kind}, where a directory is wanted; describe where a link points to.")
            above = os.path.dirname((missing_parents(path) or [path])[0])
            if item["parents"] and not os.path.isdir(above):
                self._module.fail_json(msg=f"{above} is no directory, so that {path} cannot be made below it; move it away.")

    def test(self, items: list[dict], validate: str | None) -> None:
        """Run the validators of what would be written, and that of the set; fail with the message of the first that refuses."""
        for item in items:
            if item["validate"] and self._differs(item):
                candidate = self._candidate(item)
                status, output, errors = self._module.run_command(item["validate"] % candidate)
                os.unlink(candidate)
                if status != 0:
                    self._module.fail_json(
                        msg=f"{item['path']} was left as it is: its test refuses the new content.",
                        path=item["path"],
                        rc=status,
                        stdout=output,
                        stderr=errors,
                    )
        if validate and any(self._differs(item) for item in items):
            directory = self._stage(items)
            status, output, errors = self._module.run_command(validate % directory)
            shutil.rmtree(directory)
            if status != 0:
                self._module.fail_json(
                    msg="All files were left as they are: the test of the set refuses the new content.",
                    rc=status,
                    stdout=output,
                    stderr=errors,
                )

    def apply(self, item: dict) -> None:
        path = item["path"]
        if item["parents"]:
            self._make_parents(path)
        differs = self._differs(item)
        entry = {"before_header": path, "after_header": path, "before": text_at(path), "after": wanted_text(item)}
        if differs and not self._module.check_mode:
            self._replace(item)
        attributes: dict = {}
        attributes_differ = item["state"] in ("file", "directory") and self._apply_attributes(item, attributes)
        if not (differs or attributes_differ):
            return
        self.changed_paths.append(path)
        if differs and item["state"] == "directory":
            entry = {"before_header": path, "after_header": path, "before": "", "after": "a directory\n"}
        self.diff.append(entry)
        if attributes:
            self.diff.append({"before_header": path, "after_header": path, **attributes})

    def _make_parents(self, path: str) -> None:
        for directory in missing_parents(path):
            if directory in self.changed_paths:  # by an item before, in check mode
                continue
            self.changed_paths.append(directory)
            self.diff.append({"before_header": directory, "after_header": directory, "before": "", "after": "a directory\n"})
            if not self._module.check_mode:
                os.mkdir(directory)
                os.chmod(directory, 0o755)  # whatever the umask says

    def _differs(self, item: dict) -> bool:
        path, state = item["path"], item["state"]
        if state == "directory":
            return kind_of(path) != state
        return kind_of(path) != state or text_at(path) != wanted_text(item)

    def _replace(self, item: dict) -> None:
        path, state = item["path"], item["state"]
        if item["backup"] and kind_of(path) == "file":
            self.backup_files[path] = self._module.backup_local(path)
        if state == "file":
            self._module.atomic_move(self._candidate(item), path)
        elif state == "link":
            place = tempfile.mkdtemp(prefix=".ansible_", dir=os.path.dirname(path))
            os.symlink(item["target"], os.path.join(place, "link"))
            os.replace(os.path.join(place, "link"), path)
            os.rmdir(place)
        elif state == "directory":
            os.mkdir(path, 0o755 if item["mode"] is None else 0o700)
        elif kind_of(path) == "directory":
            os.rmdir(path)
        else:
            os.unlink(path)

    def _stage(self, items: list[dict]) -> str:
        """Return a new directory with the files and links of the set at their paths."""
        root = tempfile.mkdtemp(dir=self._module.tmpdir)
        for item in items:
            path = root + os.path.normpath(item["path"])
            if item["state"] == "absent":
                continue
            os.makedirs(path if item["state"] == "directory" else os.path.dirname(path), exist_ok=True)
            if item["state"] == "file":
                os.rename(self._candidate(item), path)
            elif item["state"] == "link":
                os.symlink(item["target"], path)
        return root

    def _candidate(self, item: dict) -> str:
        descriptor, candidate = tempfile.mkstemp(dir=self._module.tmpdir)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(item["content"].encode("utf-8", "surrogateescape"))
        return candidate

    def _apply_attributes(self, item: dict, diff: dict) -> bool:
        wanted = {name: item[name] for name in ("path", "mode", "owner", "group")}
        changed = False
        if self._module.check_mode:
            if not os.path.lexists(item["path"]):
                return True
            for name, known in (("owner", pwd.getpwnam), ("group", grp.getgrnam)):
                if wanted[name] is not None and not _is_known(known, wanted[name]):
                    wanted[name] = None
                    changed = True
        return self._module.set_fs_attributes_if_different(self._module.load_file_common_arguments(wanted), changed, diff)


def _is_known(lookup, name: str) -> bool:
    try:
        lookup(name)
    except KeyError:
        return name.isdigit()
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": FILE_SPEC,
                "required_if": [("state", "file", ["content"]), ("state", "link", ["target"])],
            },
            "validate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    items = module.params["files"]
    files = FileSet(module)
    files.refuse_obstacles(items)
    if not module.check_mode:
        files.test(items, module.params["validate"])
    for item in items:
        files.apply(item)
    module.exit_json(
        changed=bool(files.changed_paths),
        changed_paths=files.changed_paths,
        backup_files=files.backup_files,
        diff=files.diff,
    )


if __name__ == "__main__":
    main()
