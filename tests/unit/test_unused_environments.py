# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""unused_environments removes an environment when nothing starts from it any more, and not before."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def host(tmp_path):
    for name in ("opt/aaaa", "opt/bbbb", "opt/source", "etc/systemd", "etc/apache2/sites-available"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("aaaa", "bbbb"):
        (tmp_path / "opt" / name / "pyvenv.cfg").touch()
    (tmp_path / "opt" / "source" / "requirements.txt").touch()
    (tmp_path / "opt" / "venv").symlink_to("bbbb")
    return tmp_path


@pytest.fixture
def clean(run_module, host):
    def run(*flags):
        arguments = {"directory": str(host / "opt"), "patterns": ["[a-f]" * 4], "references": [str(host / "etc")]}
        result = run_module("unused_environments", *flags, **arguments, remains=["source/requirements.txt", "source"])
        assert result["changed"] == bool(result["removed"]), result
        return [os.path.basename(path) for path in result["removed"]]

    return run


def test_what_nothing_names_goes_with_all_that_belongs_to_it(host, clean):
    assert clean("--check") == ["aaaa", "bbbb"]
    assert (host / "opt" / "aaaa" / "pyvenv.cfg").exists()
    assert clean() == ["aaaa", "bbbb"]
    assert not (host / "opt").exists()
    assert clean() == []


@pytest.mark.parametrize(("name", "kept"), [("aaaa/", "aaaa"), ("aaaa ", "aaaa"), ("venv/", "bbbb")])
def test_what_a_unit_names_stays(host, clean, name, kept):
    (host / "etc" / "systemd" / "carbon.service").write_text(f"ExecStart={host}/opt/{name}bin/carbon\n")
    assert clean("--check") == clean() == sorted({"aaaa", "bbbb"} - {kept})
    assert (host / "opt" / kept / "pyvenv.cfg").exists()
    assert (host / "opt" / "source" / "requirements.txt").exists() == (kept == "bbbb")
    assert clean() == []


def test_an_enabled_site_counts_and_one_that_is_only_there_does_not(host, clean):
    site = host / "etc" / "apache2" / "sites-available" / "graphite.conf"
    site.write_text(f"python-home={host}/opt/aaaa \n")
    (host / "etc" / "carbon.service.1234~").write_text(f"{host}/opt/aaaa/bin\n")
    assert "aaaa" in clean("--check")
    (host / "etc" / "apache2" / "sites-enabled").mkdir()
    (host / "etc" / "apache2" / "sites-enabled" / "graphite.conf").symlink_to(site)
    assert clean() == ["bbbb"]


def test_binary_files_pipes_and_circles_are_passed_by(host, clean):
    (host / "etc" / "cache").write_bytes(f"\0{host}/opt/aaaa/bin".encode())
    (host / "etc" / "systemd" / "round").symlink_to(host / "etc")
    (host / "etc" / "dangling").symlink_to("nowhere")
    os.mkfifo(host / "etc" / "pipe")
    assert clean() == ["aaaa", "bbbb"]


def test_what_others_have_put_there_stays(host, clean):
    (host / "opt" / "source" / "notes").touch()
    (host / "opt" / "cccc").mkdir()
    (host / "opt" / "own-environment").mkdir()
    (host / "opt" / "own-environment" / "pyvenv.cfg").touch()
    assert clean() == ["aaaa", "bbbb"]
    assert sorted(os.listdir(host / "opt")) == ["cccc", "own-environment", "source"]
    assert os.listdir(host / "opt" / "source") == ["notes"]
