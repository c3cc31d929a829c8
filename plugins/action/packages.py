# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The controller's half of the module packages, which has the documentation: one apt transaction between two looks at the host."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs the module packages on the host, then ansible.builtin.apt with what it returns."""

    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None) -> dict:
        super().run(tmp, task_vars)
        self._task_vars = task_vars
        self._warnings: list = []
        self._diff: list[dict] = []
        arguments = dict(self._task.args)
        result = self._remove(arguments) if arguments.get("state") == "absent" else self._install(arguments)
        if self._warnings:
            result["warnings"] = self._warnings
        if self._task.diff and self._diff:
            result["diff"] = self._diff
        return result

    def _install(self, arguments: dict) -> dict:
        result = self._prepare(arguments)
        installed = result["installed"]
        self._apply(arguments, [name for names in installed.values() for name in names], "present")
        missing = any(installed.values())
        for wanted in [] if self._task.check_mode and missing else arguments.get("imports") or []:
            providers = self._ask_imports(wanted, installed=False)["packages"]
            if not providers:
                continue
            component = wanted["component"]
            self._prepare({**arguments, "packages": {component: providers}})
            self._apply(arguments, providers, "present")
            installed[component] = installed.get(component, []) + providers
            if not self._task.check_mode:
                self._ask_imports(wanted, installed=True)
        return {"changed": result["changed"] or any(installed.values()), "installed": installed}

    def _remove(self, arguments: dict) -> dict:
        result = self._prepare(arguments)
        if result["removed"]:
            self._apply(arguments, result["removed"], "absent")
            if not self._task.check_mode:
                self._prepare(arguments)  # forgets the components, as nothing is left to remove
        return {"changed": result["changed"] or bool(result["removed"]), "removed": result["removed"], "kept": result["kept"]}

    def _prepare(self, arguments: dict) -> dict:
        result = self._run("metricstack.graphite.packages", arguments)
        # Scripts of packages call root's programs, whose directories su and doas leave out of PATH.
        self._task.environment = [*(self._task.environment or []), {"PATH": result["search_path"]}]
        return result

    def _ask_imports(self, wanted: dict, *, installed: bool) -> dict:
        return self._run(
            "metricstack.graphite.python_imports_info",
            {"python": wanted["python"], "modules": wanted["modules"], "packages_installed": installed},
        )

    def _apply(self, arguments: dict, packages: list[str], state: str) -> None:
        if not packages:
            return
        names = "".join(f"{name}\n" for name in sorted(set(packages)))
        before, after = ("", names) if state == "present" else (names, "")
        self._diff.append({"before_header": "packages", "after_header": "packages", "before": before, "after": after})
        # apt's own check mode needs python3-apt, which a bare host may lack; the plan is known without.
        if self._task.check_mode:
            return
        self._run(
            "ansible.builtin.apt",
            {
                "name": sorted(set(packages)),
                "state": state,
                "install_recommends": False,
                "purge": bool(arguments.get("purge")) and state == "absent",
                "lock_timeout": arguments.get("lock_timeout", 600),
            },
        )

    def _run(self, module: str, arguments: dict) -> dict:
        result = self._execute_module(module_name=module, module_args=arguments, task_vars=self._task_vars)
        if result.get("failed"):
            raise AnsibleActionFail(result.get("msg", f"{module} failed"), result=result)
        self._warnings += result.get("warnings", [])
        return result
