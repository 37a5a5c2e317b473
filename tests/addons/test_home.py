"""The home: made once and whole, and refused when it is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from addons import ballast, durable, pins
from addons.errors import StartCode, StartRefused
from addons.home import Home, home_folder
from tests.addons.dying_steps import Crash, die_after
from tests.addons.logs import open_lane, report


def refused(folder: Path) -> StartRefused:
    with pytest.raises(StartRefused) as caught:
        Home.open(folder)
    return caught.value


@pytest.fixture
def used(home: Home) -> Home:
    """A home whose log has begun."""
    open_lane(home).close("test")
    return home


@pytest.mark.parametrize(("option", "variable", "uid", "expected"), [
    pytest.param("/a/b", "/c", 1000, "/a/b", id="the option comes first"),
    pytest.param(None, "/c", 1000, "/c", id="then the variable"),
    pytest.param(None, "", 0, "/var/lib/governor", id="root has a system folder"),
    pytest.param(None, "", 1000, "/state/governor", id="a user has the state folder"),
])
def test_where_a_home_is(option, variable, uid, expected, monkeypatch):
    monkeypatch.setenv("GOVERNOR_HOME", variable)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert home_folder(option) == Path(expected)


def test_a_relative_state_folder_is_ignored_as_its_specification_says(monkeypatch):
    monkeypatch.delenv("GOVERNOR_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert home_folder(None) == Path.home() / ".local" / "state" / "governor"


@pytest.mark.parametrize("mode", [None, 0o700, 0o755], ids=["absent", "empty", "empty and open to others"])
def test_an_absent_or_empty_folder_becomes_a_private_home(tmp_path, mode):
    folder = tmp_path / "home"
    if mode is not None:
        folder.mkdir(mode=mode)

    home = Home.open(folder)

    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert [oct(path.stat().st_mode & 0o077) for path in folder.rglob("*")] == ["0o0"] * len(list(folder.rglob("*")))
    assert home.paths.ballast.stat().st_blocks * 512 >= ballast.BALLAST_BYTES
    assert home.root_key().public == home.root.public


def test_the_pin_lies_outside_the_home_and_names_its_root_key_and_place(home):
    text = pins.path(home.log_id).read_text()

    assert text == f"{home.root}\n{home.paths.folder}\n"
    assert home.paths.folder not in pins.path(home.log_id).parents


def test_opening_again_changes_nothing(used):
    before = {path: path.read_bytes() for path in used.paths.folder.rglob("*") if path.is_file()}

    again = Home.open(used.paths.folder)

    assert again.log_id == used.log_id
    assert before == {path: path.read_bytes() for path in used.paths.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lost", [
    "keys", "audit", "audit/lanes", "audit/lanes/main", "audit/lanes/main/000000.jsonl", "audit/trust.json",
    "agents.json",
])
def test_a_home_that_lost_a_part_is_incomplete(used, lost):
    path = used.paths.folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert refused(used.paths.folder).code is StartCode.HOME_INCOMPLETE


def test_a_log_without_any_key_is_incomplete(used):
    for key in used.paths.keys.iterdir():
        key.unlink()

    assert refused(used.paths.folder).code is StartCode.HOME_INCOMPLETE


def test_a_root_key_kept_elsewhere_is_not_needed_by_a_lane_that_has_its_own(used):
    used.paths.root_key.unlink()

    home = Home.open(used.paths.folder)
    open_lane(home).close("test")

    assert report(home).result == "verified"


def test_a_new_lane_needs_the_root_key(used):
    used.paths.root_key.unlink()

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(used.paths.folder), "cli")

    assert caught.value.code is StartCode.HOME_INCOMPLETE


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_pinned_home_that_is_gone_is_not_made_anew(used, left):
    shutil.rmtree(used.paths.folder)
    if left == "an empty folder":
        used.paths.folder.mkdir()

    problem = refused(used.paths.folder)

    assert problem.code is StartCode.HOME_INCOMPLETE
    assert str(pins.path(used.log_id)) in problem.text


def test_without_its_pin_a_removed_home_is_made_anew(used):
    shutil.rmtree(used.paths.folder)
    pins.path(used.log_id).unlink()

    assert Home.open(used.paths.folder).log_id != used.log_id


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    assert refused(tmp_path).code is StartCode.HOME_INCOMPLETE
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("reading", ["lanes", "minimum"])
@pytest.mark.parametrize("made", ["home", "used"])
def test_a_lane_that_begins_while_the_home_is_looked_at_is_not_taken_for_lost(request, monkeypatch, made, reading):
    home = request.getfixturevalue(made)
    read, begun = getattr(Home, reading), list[str]()

    def then_another_begins(self: Home) -> object:
        found = read(self)
        if not begun:
            begun.append("cli")
            open_lane(home, "cli").close("done")
        return found

    monkeypatch.setattr(Home, reading, then_another_begins)

    Home.open(home.paths.folder)

    assert begun


@pytest.mark.parametrize("part", ["", "keys", "audit", "audit/lanes"])
def test_a_home_open_to_others_is_refused(used, part):
    (used.paths.folder / part).chmod(0o750)

    assert refused(used.paths.folder).code is StartCode.HOME_UNWRITABLE


def test_a_home_below_a_file_is_unwritable(tmp_path):
    (tmp_path / "file").write_text("")

    assert refused(tmp_path / "file" / "home").code is StartCode.HOME_UNWRITABLE
    assert refused(tmp_path / "file").code is StartCode.HOME_UNWRITABLE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_home_of_someone_else_is_refused(used):
    os.chown(used.paths.folder, 12345, -1)

    assert refused(used.paths.folder).code is StartCode.HOME_UNWRITABLE


def test_a_home_on_a_place_that_takes_no_files_is_unwritable():
    assert refused(Path("/proc/governor-home")).code is StartCode.HOME_UNWRITABLE


def test_a_disk_without_room_for_the_ballast_is_unwritable(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    assert refused(tmp_path / "home").code is StartCode.HOME_UNWRITABLE


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b'{"root":1}'])
def test_a_damaged_trust_file_is_tampering(used, content):
    used.paths.trust.write_bytes(content)

    assert refused(used.paths.folder).code is StartCode.TAMPERED


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"lanes":{},"log_id":"0000000000000000","v":1}'])
def test_a_damaged_minimum_is_tampering(used, content):
    used.paths.minimum.write_bytes(content)

    assert refused(used.paths.folder).code is StartCode.TAMPERED


def test_another_root_key_in_the_home_certifies_no_lane(used, tmp_path):
    other = Home.open(tmp_path / "other")
    shutil.copy(other.paths.root_key, used.paths.root_key)

    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(used.paths.folder), "cli")
    assert caught.value.code is StartCode.TAMPERED


def test_a_start_does_not_read_the_root_key_of_a_lane_that_it_knows(used):
    used.paths.root_key.write_bytes(b"as good as none")

    open_lane(Home.open(used.paths.folder)).close("test")

    assert report(used).result == "verified"


def test_a_root_key_open_to_others_is_refused_unread(used):
    used.paths.root_key.chmod(0o640)

    assert refused(used.paths.folder).code is StartCode.KEY_PERMISSIONS


def test_another_root_key_than_the_pinned_one_is_tampering(used, tmp_path):
    other = Home.open(tmp_path / "other")
    pins.write(pins.Pin(used.log_id, str(other.root), used.paths.folder))

    assert refused(used.paths.folder).code is StartCode.TAMPERED


def test_another_log_in_the_place_of_the_pinned_one_is_tampering(used, tmp_path):
    other = Home.open(tmp_path / "other")
    open_lane(other).close("test")
    shutil.rmtree(used.paths.folder)
    shutil.move(other.paths.folder, used.paths.folder)

    assert refused(used.paths.folder).code is StartCode.TAMPERED


def test_a_crash_at_any_step_of_the_making_is_finished_by_the_next_start(tmp_path, monkeypatch):
    """Each durable step fails once; what it leaves is opened again and must become a working home."""
    crashed = 0
    while _crashes_at(crashed, tmp_path / str(crashed), monkeypatch):
        home = Home.open(tmp_path / str(crashed))
        open_lane(home).close("test")

        assert report(home).result == "verified"
        assert len(pins.of_home(home.paths.folder)) == 1
        crashed += 1

    assert crashed > 15


def _crashes_at(step: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Make a home and its log, dying at the given durable step; False when there are fewer steps."""
    with monkeypatch.context() as patched:
        die_after(step, patched, [(durable, "replace"), (durable, "make_folder"), (durable, "sync_folder"),
                                  (os, "posix_fallocate")])
        try:
            lane = open_lane(Home.open(folder))
        except Crash:
            return True
    lane.close("test")
    return False
