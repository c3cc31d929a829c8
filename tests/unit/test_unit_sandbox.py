# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The sandbox of units; that services work in it and systemd likes it is in molecule."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.systemd import unit_sandbox_of

ROOT = Path(__file__).resolve().parents[2]


def settings(**options):
    return dict(line.split("=", 1) for line in unit_sandbox_of(options).splitlines() if not line.startswith("SystemCallFilter"))


def test_what_is_written_to_is_all_that_can_be_written_to():
    sandbox = settings(writable=["/var/lib/graphite/whisper/", "/var/log/carbon"])
    assert sandbox["ProtectSystem"] == "strict"
    assert sandbox["ReadWritePaths"] == "/var/lib/graphite/whisper /var/log/carbon"
    assert sandbox["ProtectHome"] == "true"
    assert sandbox["RestrictAddressFamilies"] == "AF_UNIX AF_INET AF_INET6"
    assert "BindPaths" not in sandbox
    assert "ReadWritePaths" not in settings()


@pytest.mark.parametrize("path", ["/home/graphite/whisper", "/root/whisper"])
def test_a_directory_below_a_home_is_mounted_into_the_sandbox_alone(path):
    sandbox = settings(writable=[path, "/var/log/carbon"])
    assert (sandbox["ProtectHome"], sandbox["BindPaths"], sandbox["ReadWritePaths"]) == ("tmpfs", path, "/var/log/carbon")
    sandbox = settings(writable=["/var/lib/graphite"], readable=[path, "/srv/whisper"])
    assert (sandbox["ProtectHome"], sandbox["BindReadOnlyPaths"]) == ("tmpfs", path)


def test_programs_that_compile_at_run_time_keep_the_memory_for_it():
    assert "MemoryDenyWriteExecute" not in settings(memory_deny_write_execute=False)
    assert settings(address_families=["AF_UNIX"])["RestrictAddressFamilies"] == "AF_UNIX"


def test_a_service_of_root_keeps_the_capabilities_that_it_names():
    assert settings()["CapabilityBoundingSet"] == ""
    assert settings(capabilities=["CAP_SETUID", "CAP_SETGID"])["CapabilityBoundingSet"] == "CAP_SETUID CAP_SETGID"


def test_a_word_that_it_does_not_know_is_refused():
    with pytest.raises(AnsibleFilterError, match="knows no writeable"):
        unit_sandbox_of({"writeable": []})


@pytest.mark.parametrize("template", sorted(ROOT.glob("roles/*/templates/*.service.j2")), ids=lambda path: path.name)
def test_every_service_has_the_sandbox_from_one_place(template):
    text = template.read_text()
    assert "metricstack.graphite.unit_sandbox" in text
    assert "ProtectSystem" not in text
