# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Modules through the command ``ansible``, once for each kind: what ``run_module`` gives the other tests is what a user gets."""

from __future__ import annotations

import pytest


@pytest.fixture
def both_ways(run_module, run_by_ansible):
    """Run a module both ways; return the result, which is the same."""

    def run(module, /, *flags, **arguments):
        direct = run_module(module, *flags, **arguments)
        result, output = run_by_ansible(module, *flags, **arguments)
        assert direct.pop("shown_diff") in result.pop("shown_diff")
        for one in (direct, result):
            one.pop("diff", None)  # a user sees it as text
            one.pop("bytes_available", None)
        assert result == direct, output
        return result

    return run


def test_a_module_with_a_diff_in_check_mode(both_ways, tmp_path):
    file = tmp_path / "file"
    file.write_text("old\n")
    arguments = {"files": [{"path": str(file), "content": "größe\n", "mode": "0600"}]}
    assert both_ways("config_files", "--check", **arguments)["changed"]
    assert file.read_text() == "old\n"


def test_a_module_that_sends_the_collections_code_elsewhere(both_ways, tmp_path):
    (tmp_path / "storage-schemas.conf").write_text("[all]\npattern = .*\nretentions = 10s:1d\n")
    assert both_ways("whisper_retention", directory=str(tmp_path), conf_directory=str(tmp_path))["series"] == 0


def test_a_module_that_fails(both_ways, tmp_path):
    assert "is there" in both_ways("whisper_prune", directory=f"{tmp_path}/none", unused_for="90d")["msg"]


def test_a_module_that_is_called_wrongly(both_ways):
    assert "unsupported" in both_ways("statsd_info", prot=8126)["msg"].lower()


def test_a_password_is_never_printed(run_by_ansible):
    """On a host that has no graphite-web yet, check mode tells what would be done."""
    arguments = {"name": "alice", "password": "never-to-be-seen", "python": "/nowhere/python"}
    result, output = run_by_ansible("graphite_user", "--check", "-vvv", **arguments)
    assert result["changed"]
    assert result["invocation"]["module_args"]["name"] == "alice"
    assert "never-to-be-seen" not in output
