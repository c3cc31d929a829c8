# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""config_files, run as Ansible runs it, on real files."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def bring(run_module):
    return lambda *files, flags=(): run_module("config_files", *flags, files=list(files))


@pytest.fixture
def bring_set(run_module):
    return lambda validate, *files, flags=(): run_module("config_files", *flags, files=list(files), validate=validate)


def listing(directory):
    return {path.relative_to(directory): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in directory.rglob("*")}


def test_a_set_is_brought_once_and_checked_before(bring, tmp_path):
    wanted = [
        {"path": f"{tmp_path}/etc", "state": "directory", "mode": "0750"},
        {"path": f"{tmp_path}/etc/a.conf", "content": "größe = 1\n", "mode": "0640"},
        {"path": f"{tmp_path}/etc/b.conf", "state": "link", "target": "a.conf"},
        {"path": f"{tmp_path}/old.conf", "state": "absent"},
    ]
    (tmp_path / "old.conf").touch()
    before = listing(tmp_path)
    checked = bring(*wanted, flags=["--check"])
    assert listing(tmp_path) == before
    brought = bring(*wanted)
    assert checked["changed_paths"] == brought["changed_paths"] == [item["path"] for item in wanted]
    assert (tmp_path / "etc/b.conf").read_text() == "größe = 1\n"
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("etc", "etc/a.conf")] == ["0o750", "0o640"]
    assert not (tmp_path / "old.conf").exists()
    after = listing(tmp_path)
    for flags in (["--check"], []):
        assert not bring(*wanted, flags=flags)["changed"]
    assert listing(tmp_path) == after


def test_no_file_is_replaced_when_the_test_of_another_fails(bring, tmp_path):
    (tmp_path / "first").write_text("old\n")
    result = bring(
        {"path": f"{tmp_path}/first", "content": "new\n"},
        {"path": f"{tmp_path}/second", "content": "bad\n", "validate": "grep -q good %s"},
    )
    assert result["path"] == f"{tmp_path}/second"
    assert (tmp_path / "first").read_text() == "old\n"
    assert not (tmp_path / "second").exists()
    assert bring({"path": f"{tmp_path}/second", "content": "good\n", "validate": "grep -q good %s"})["changed"]


def test_what_a_diff_shows_and_what_is_kept_aside(bring, tmp_path):
    file = tmp_path / "file"
    file.write_text("old\n")
    result = bring({"path": str(file), "content": "new\n", "mode": "0600", "backup": True})
    assert "-old\n+new\n" in result["shown_diff"]
    assert '"mode": "0600"' in result["shown_diff"]
    with open(result["backup_files"][str(file)]) as kept:
        assert kept.read() == "old\n"


def test_a_mode_alone_is_a_change(bring, tmp_path):
    file = tmp_path / "file"
    file.write_text("same\n")
    file.chmod(0o666)
    item = {"path": str(file), "content": "same\n", "mode": "0644"}
    assert bring(item, flags=["--check"])["changed_paths"] == [str(file)]
    assert file.stat().st_mode & 0o777 == 0o666
    assert bring(item)["changed_paths"] == [str(file)]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_link_is_replaced_and_not_followed(bring, tmp_path):
    (tmp_path / "elsewhere").write_text("theirs\n")
    os.symlink("elsewhere", tmp_path / "file")
    assert bring({"path": f"{tmp_path}/file", "content": "ours\n"})["changed"]
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "theirs\n"


@pytest.mark.parametrize("state", ["file", "directory"])
def test_what_is_in_the_way_is_named_and_left(bring, tmp_path, state):
    os.symlink("/etc", tmp_path / "directory")
    (tmp_path / "file").mkdir()
    result = bring({"path": f"{tmp_path}/new", "content": ""}, {"path": f"{tmp_path}/{state}", "state": state, "content": "x"})
    assert f"{tmp_path}/{state}" in result["msg"]
    assert not (tmp_path / "new").exists()


def test_an_owner_that_does_not_exist_yet_is_a_change_in_check_mode(bring, tmp_path):
    (tmp_path / "file").write_text("same\n")
    item = {"path": f"{tmp_path}/file", "content": "same\n", "owner": "nobody-yet"}
    assert bring(item, flags=["--check"])["changed"]
    assert "nobody-yet" in bring(item)["msg"]


def test_missing_parents_are_made_and_reported_in_check_mode(bring, tmp_path):
    item = {"path": f"{tmp_path}/srv/graphite/whisper", "state": "directory", "parents": True, "mode": "0750"}
    other = {"path": f"{tmp_path}/srv/graphite/file", "content": "", "parents": True}
    expected = [f"{tmp_path}/srv", f"{tmp_path}/srv/graphite", item["path"], other["path"]]
    assert bring(item, other, flags=["--check"])["changed_paths"] == expected
    assert list(tmp_path.iterdir()) == []
    assert bring(item, other)["changed_paths"] == expected
    modes = [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("srv", "srv/graphite", "srv/graphite/whisper")]
    assert modes == ["0o755", "0o755", "0o750"]
    assert not bring(item, other)["changed"]


def test_a_file_in_the_way_of_parents_is_named(bring, tmp_path):
    (tmp_path / "srv").touch()
    for flags in (["--check"], []):
        result = bring({"path": f"{tmp_path}/srv/graphite/whisper", "state": "directory", "parents": True}, flags=flags)
        assert result["msg"].startswith(f"{tmp_path}/srv is no directory")


def test_a_directory_goes_with_what_it_holds_and_only_then(bring, tmp_path):
    (tmp_path / "program").mkdir()
    (tmp_path / "program/file").touch()
    directory = {"path": f"{tmp_path}/program", "state": "absent"}
    assert f"holds {tmp_path}/program/file" in bring(directory)["msg"]
    file = {"path": f"{tmp_path}/program/file", "state": "absent"}
    assert bring(file, directory, flags=["--check"])["changed_paths"] == [file["path"], directory["path"]]
    assert bring(file, directory)["changed_paths"] == [file["path"], directory["path"]]
    assert not bring(file, directory)["changed"]
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_tested_as_a_whole(bring_set, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"port {name}\n")
    # Each is good beside the new version of the other only.
    swapped = [{"path": f"{tmp_path}/one", "content": "port two\n"}, {"path": f"{tmp_path}/two", "content": "port one\n"}]
    linked = {"path": f"{tmp_path}/enabled/one", "state": "link", "target": "../one"}
    directory = {"path": f"{tmp_path}/enabled", "state": "directory"}
    distinct = f"sh -c 'cd %s{tmp_path} && cat enabled/one && ! cmp -s one two'"
    refused = bring_set(distinct, swapped[0], directory, linked, {**swapped[1], "content": "port two\n"})
    assert "All files were left as they are" in refused["msg"]
    assert (tmp_path / "one").read_text() == "port one\n"
    assert not (tmp_path / "enabled").exists()
    assert len(bring_set(distinct, *swapped, directory, linked)["changed_paths"]) == 4
    assert (tmp_path / "enabled" / "one").read_text() == "port two\n"


def test_a_set_without_a_change_is_not_tested(bring_set, tmp_path):
    file = {"path": f"{tmp_path}/file", "content": "same\n"}
    assert bring_set("true %s", file)["changed"]
    assert not bring_set("false %s", file)["changed"]
    assert "msg" in bring_set("false %s", {"path": f"{tmp_path}/file", "state": "absent"})
    assert bring_set("false %s", {"path": f"{tmp_path}/file", "state": "absent"}, flags=["--check"])["changed"]
