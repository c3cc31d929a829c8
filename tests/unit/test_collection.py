# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the collection says about itself is what it holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.metricstack.graphite.plugins.filter.stack import stack_problems, stack_topology
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import StorageRules
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_series
from conftest import TRUSTED

ROOT = Path(__file__).resolve().parents[2]
MODULES = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
FILTERS = {path.stem for path in (ROOT / "plugins" / "filter").glob("*.yml")}
PAGES = sorted(path.relative_to(ROOT) for pattern in ("*.md", "docs/*.md", "roles/*/README.md") for path in ROOT.glob(pattern))
OPTIONS = {
    name: option
    for specs in ROOT.glob("roles/*/meta/argument_specs.yml")
    for name, option in yaml.safe_load(specs.read_text())["argument_specs"]["main"]["options"].items()
}


def load(path: str):
    return yaml.safe_load((ROOT / path).read_text())


def released(since: dict[str, str]) -> set[str]:
    """Return what came with a release that there is; what comes with the next one is added to the changelog with it."""
    return {name for name, version in since.items() if version in load("changelogs/changelog.yaml")["releases"]}


def told_changes() -> str:
    """Return what the changelog and the fragments of the next release say, apart from the lists of modules and filters."""
    fragments = "".join(path.read_text() for path in (ROOT / "changelogs" / "fragments").glob("*.yml"))
    return fragments + yaml.safe_dump([release["changes"] for release in load("changelogs/changelog.yaml")["releases"].values()])


def test_the_changelog_names_every_module_and_filter():
    releases = load("changelogs/changelog.yaml")["releases"].values()
    modules = {module["name"] for release in releases for module in release.get("modules", [])}
    filters = {plugin["name"] for release in releases for plugin in release.get("plugins", {}).get("filter", [])}
    module_since = {}
    for name in MODULES:
        (module_since[name],) = re.findall(r"(?m)^version_added: (\S+)$", (ROOT / "plugins" / "modules" / f"{name}.py").read_text())
    assert released(module_since) - modules == set()
    filter_since = {name: load(f"plugins/filter/{name}.yml")["DOCUMENTATION"]["version_added"] for name in FILTERS}
    assert released(filter_since) - filters == set()
    # The changes say what to write instead of what is there no more.
    assert {name for name in (modules - MODULES) | (filters - FILTERS) if name not in told_changes()} == set()


def test_readme_tables_are_up_to_date():
    result = subprocess.run([sys.executable, ROOT / "script" / "docs", "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_modules_with_the_same_options_share_their_defaults():
    groups = {name: set(modules) for name, modules in load("meta/runtime.yml")["action_groups"].items()}
    sources = {name: (ROOT / "plugins" / "modules" / f"{name}.py").read_text() for name in MODULES}
    assert groups == {
        "graphite": {name for name in MODULES if name.startswith("graphite_")},
        "graphite_web_api": {name for name in MODULES if "WEB_API_ARGUMENT_SPEC" in sources[name]},
        "statsd": {name for name in MODULES if name.startswith("statsd_")},
    }


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    broken = []
    for target, _hash, anchor in re.findall(r"\]\(([^)#]*)(#?)([^)]*)\)", (ROOT / page).read_text()):
        if "://" in target:
            continue
        file = (ROOT / page).parent / target if target else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def anchors(page: Path) -> list[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert [str(page) for page in PAGES if str(page) != "README.md" and f"({page})" not in readme] == []


def test_every_playbook_is_described():
    described = re.findall(r"^\| `(\w+\.yml)` \|", (ROOT / "docs" / "playbooks.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))


def test_every_play_that_reads_the_topology_describes_the_stack_first():
    # stack_examination is what examine.yml finds out, which describes the stack before.
    read = re.compile(r"\bstack\.\w|\bstack_(?!examination|packages|ring|tls_examined)\w|\bdashboards_\w")
    described = {
        "examine": {"ansible.builtin.import_tasks": "tasks/describe_stack.yml"},
        "others": {"ansible.builtin.include_tasks": "tasks/describe_stack.yml", "when": "stack_examination is not defined"},
    }
    reading = 0
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in load(str(path)):
            # site.yml and uninstall.yml import the others, validate.yml asks filters, and grafana_dashboards.yml reads one file of data.
            if path.stem in ("site", "validate", "grafana_dashboards", "uninstall") or not read.search(str({**play, "name": ""})):
                continue
            # Roles come before tasks.
            tasks = [{key: value for key, value in task.items() if key != "name"} for task in play.get("pre_tasks") or play["tasks"]]
            reading += 1
            assert tasks[0] == described.get(path.stem, described["others"]), play["name"]
            # ansible-core 2.18 and earlier evaluate them for this task as well.
            values = [value for group in play.get("module_defaults", {}).values() for value in group.values()]
            assert [value for value in values if read.search(str(value)) and "default(" not in value] == [], play["name"]
    assert reading > 10


def test_uninstall_knows_every_owner_of_packages_that_the_playbooks_install():
    tasks = {path.stem: load(str(path)) for path in sorted((ROOT / "playbooks").glob("*.yml"))}
    by_state: dict[str, set[str]] = {"present": set(), "absent": set()}
    for play in (play for plays in tasks.values() for play in plays):
        for task in play.get("tasks", []):
            arguments = task.get("metricstack.graphite.packages", {})
            if isinstance(arguments.get("packages"), dict):
                by_state[arguments.get("state", "present")] |= set(arguments["packages"])
    # What tls.yml installs for the role carbon_relay, the role removes.
    assert by_state["present"] - {"carbon_relay"} == by_state["absent"] == {"backup", "go_benchmark", "rebalance"}


@pytest.mark.parametrize(("playbook", "variable"), [("verify", "__verify_directory"), ("go_benchmark", "__benchmark_directory")])
def test_artifacts_are_written_where_ansible_was_started(playbook, variable, monkeypatch, tmp_path):
    loader = DataLoader()
    play = loader.load_from_file(str(ROOT / "playbooks" / f"{playbook}.yml"), **TRUSTED)[-1]
    monkeypatch.chdir(tmp_path)
    # As in a service or in cron, or as a program leaves it that starts another one in another directory.
    for environment in ({}, {"PWD": "/nonexistent"}):
        monkeypatch.delenv("PWD", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert Templar(loader=loader, variables={}).template(play["vars"][variable]) == str(tmp_path / "artifacts")


def test_documented_playbook_variables_exist():
    source = "".join(path.read_text() for path in (ROOT / "playbooks").rglob("*.yml"))
    pages = "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("playbooks", "doctor"))
    documented = re.findall(r"`((?:graphite_backup|graphite_restore|verify|go_benchmark|doctor)_\w+)`", pages)
    assert [name for name in documented if name not in source] == []


def yaml_blocks(page: Path) -> list[dict]:
    """Return the examples of a page, with a word in place of each template, which only a run of Ansible evaluates."""
    examples = [block.text for block in pages.blocks(str(page)) if block.language == "yaml"]
    return [yaml.safe_load(re.sub(r"{{.*?}}", "text-in-place-of-a-template", text)) for text in examples]


def roles_variables(block: object) -> dict:
    """Return the variables of roles that an example sets."""
    return {name: value for name, value in block.items() if name in OPTIONS} if isinstance(block, dict) else {}


EXAMPLES = [
    pytest.param(roles_variables(block), id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(yaml_blocks(page))
    if roles_variables(block)
]


@pytest.mark.parametrize("variables", EXAMPLES)
def test_the_examples_are_accepted(variables):
    assert stack_problems({"all": ["host"]}, {"host": variables}, "host") == []


def test_some_examples_are_found():
    assert {example.id.rpartition("-")[0] for example in EXAMPLES} >= {
        "README.md",
        "docs/adopt.md",
        "docs/retention.md",
        "docs/database.md",
    }


def test_the_legacy_namespace_needs_the_whole_example():
    config = pages.variables("docs/adopt.md", "names")
    # Nothing but the rule for stats_counts differs from the default.
    name = "carbon_cache_storage_schemas"
    assert [rule for rule in config[name] if rule["name"] != "stats_counts"] == OPTIONS[name]["default"]
    alone = {"statsd_config": config["statsd_config"]}
    assert any("stats_counts" in problem for problem in stack_problems({"all": ["host"]}, {"host": alone}, "host"))
    rules = StorageRules(config[name], stack_topology({"all": ["host"]}, {"host": config}, "host")["carbon"]["storage_aggregations"])
    shape = rules.shape(statsd_series(config["statsd_config"], "requests")["counter"])
    assert (shape.rule, shape.archives[0].seconds_per_point, shape.xfilesfactor, shape.aggregation_method) == ("stats_counts", 10, 0, "sum")


@pytest.mark.parametrize("page", ["README.md", "docs/own_hosts.md"])
def test_the_example_inventory_is_accepted(page):
    inventories = [block["all"] for block in yaml_blocks(Path(page)) if "all" in block]
    assert inventories
    for inventory in inventories:
        hostvars: dict[str, dict] = {}
        for group in inventory["children"].values():
            for host, variables in group["hosts"].items():
                secrets = {"vault_graphite_database_password": "a", "vault_graphite_web_secret_key": "b"}
                hostvars.setdefault(host, {**secrets, **inventory.get("vars", {})}).update({**group.get("vars", {}), **(variables or {})})
        groups = {"all": list(hostvars), **{name: list(group["hosts"]) for name, group in inventory["children"].items()}}
        assert len(hostvars) > 1
        assert {host: stack_problems(groups, hostvars, host) for host in hostvars} == {host: [] for host in hostvars}
