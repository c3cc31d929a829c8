# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""removed_files removes what it is given, and nothing beside it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "data" / "stats" / "old").mkdir(parents=True)
    (tmp_path / "data" / "empty").mkdir()
    for name in ("a.wsp", "stats/b.wsp", "stats/old/c.wsp.bak"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.wsp").touch()
    return tmp_path


@pytest.fixture
def remove(run_module):
    def run(*flags, **options):
        return run_module("removed_files", *flags, directories=[options])

    return run


def test_a_tree_goes_with_its_directories(tree, remove):
    data = tree / "data"
    checked = remove("--check", path=str(data), patterns=["*.wsp*"])
    assert (checked["changed"], checked["removed"]) == (True, {str(data): 3})
    assert (data / "a.wsp").exists()
    assert remove(path=str(data), patterns=["*.wsp*"])["removed"] == {str(data): 3 + 4}
    assert not data.exists()
    assert not remove(path=str(data), patterns=["*.wsp*"])["changed"]


def test_what_has_another_name_stays_with_its_directory(tree, remove):
    (tree / "data" / "stats" / "notes").touch()
    (tree / "data" / "f.wsp").mkdir()
    (tree / "data" / "f.wsp" / "notes").touch()
    (tree / "data" / "link.wsp").symlink_to(tree / "elsewhere" / "d.wsp")
    (tree / "data" / "further").symlink_to(tree / "elsewhere")
    assert remove(path=str(tree / "data"), patterns=["*.wsp*"])["changed"]
    left = sorted(str(path.relative_to(tree / "data")) for path in (tree / "data").glob("**/*"))
    assert [name for name in left if not name.startswith("further/")] == [
        "f.wsp",
        "f.wsp/notes",
        "further",
        "link.wsp",
        "stats",
        "stats/notes",
    ]
    assert (tree / "elsewhere" / "d.wsp").exists()


def test_without_patterns_everything_goes_and_links_are_not_followed(tree, remove):
    (tree / "data" / "further").symlink_to(tree / "elsewhere")
    (tree / "link").symlink_to("elsewhere")
    assert remove(path=str(tree / "data"))["changed"]
    assert remove(path=str(tree / "link"))["removed"] == {str(tree / "link"): 1}
    assert os.listdir(tree) == ["elsewhere"]
    assert (tree / "elsewhere" / "d.wsp").exists()


def test_a_link_to_another_disk_is_followed_for_patterns(tree, remove):
    (tree / "link").symlink_to("elsewhere")
    assert remove(path=str(tree / "link"), patterns=["*.wsp"])["removed"] == {str(tree / "link"): 1}
    assert os.listdir(tree / "elsewhere") == []


def test_a_directory_that_is_not_to_be_searched_further_stays(tree, remove):
    assert remove(path=str(tree / "data"), patterns=["*.wsp"], recurse=False)["removed"] == {str(tree / "data"): 1}
    assert (tree / "data" / "stats" / "b.wsp").exists()
    (tree / "elsewhere" / "d.wsp").unlink()
    assert not remove(path=str(tree / "elsewhere"), patterns=["*.wsp"], recurse=False)["changed"]
    assert (tree / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can mount")
@pytest.mark.parametrize("patterns", [None, ["*.wsp"]])
def test_another_file_system_stays_as_it_is(tree, remove, file_system, patterns):
    mounted = file_system(tree / "data" / "stats", "size=1m")
    (mounted / "kept.wsp").touch()
    (mounted / "kept").mkdir()
    assert remove(path=str(tree / "data"), patterns=patterns)["changed"]
    assert sorted(os.listdir(mounted)) == ["kept", "kept.wsp"]
    assert not (tree / "data" / "a.wsp").exists()
    # By itself, it is emptied and stays.
    assert remove(path=str(mounted))["changed"]
    assert os.listdir(mounted) == []


@pytest.mark.parametrize("path", ["/", "//", "/srv/..", "relative"])
def test_dangerous_paths_are_refused(remove, path):
    assert "give the absolute path of a directory other than /" in remove("--check", path=path)["msg"]
