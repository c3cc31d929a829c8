# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""owned_directories gives what is in a directory, and nothing that only has a name there."""

from __future__ import annotations

import os
import pwd

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can give files away")
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "data" / "whisper").mkdir(parents=True)
    (tmp_path / "data" / "graphite.db").touch()
    (tmp_path / "data" / "whisper" / "a.wsp").touch()
    (tmp_path / "secret").touch()
    os.link(tmp_path / "secret", tmp_path / "data" / "hard")
    (tmp_path / "data" / "soft").symlink_to(tmp_path / "secret")
    return tmp_path


@pytest.fixture
def give(run_module):
    def run(*flags, **arguments):
        return run_module("owned_directories", *flags, owner="nobody", **arguments)

    return run


def owner(path):
    return path.lstat().st_uid


def test_everything_is_given_but_files_of_others_and_what_is_excluded(tree, give):
    arguments = {"paths": [str(tree / "data")], "exclude": [str(tree / "data" / "whisper")]}
    checked = give("--check", **arguments)
    assert set(checked["given"]) == {str(tree / "data"), str(tree / "data" / "graphite.db"), str(tree / "data" / "soft")}, checked
    assert owner(tree / "data") == 0
    assert give(**arguments)["given"] == checked["given"]
    assert owner(tree / "data" / "graphite.db") == owner(tree / "data") == NOBODY.pw_uid
    assert owner(tree / "secret") == owner(tree / "data" / "whisper") == owner(tree / "data" / "whisper" / "a.wsp") == 0
    assert not give(**arguments)["changed"]


def test_a_link_to_another_disk_is_followed_and_stays_roots(tree, give):
    (tree / "disk").mkdir()
    (tree / "disk" / "graphite.db").touch()
    (tree / "link").symlink_to("disk")
    result = give(paths=[str(tree / "link")])
    assert str(tree / "link" / "graphite.db") in result["given"], result
    assert owner(tree / "disk" / "graphite.db") == owner(tree / "disk") == NOBODY.pw_uid
    assert owner(tree / "link") == 0


def test_a_link_that_somebody_else_has_set_is_refused(tree, give):
    (tree / "disk").mkdir()
    (tree / "link").symlink_to("disk")
    os.chown(tree / "link", NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    assert "link" in give(paths=[str(tree / "link")])["msg"]
    assert owner(tree / "disk") == 0


def test_directories_are_made_below_roots_own_and_others_left_alone(tree, give):
    wanted = [str(tree / "srv" / "graphite" / "database"), str(tree / "data")]
    assert give("--check", create=wanted)["made"] == wanted[:1]
    assert give(create=wanted)["made"] == wanted[:1]
    assert owner(tree / "srv" / "graphite") == owner(tree / "data") == 0
    assert owner(tree / "srv" / "graphite" / "database") == NOBODY.pw_uid
    assert not give(create=wanted)["changed"]
