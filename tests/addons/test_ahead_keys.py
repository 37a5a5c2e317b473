"""Keys made ahead: a lane begins with them where the root key is not, whatever crashes, and with nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from addons import ahead_keys, durable
from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.keys import SigningKey
from kernel import note
from tests.addons.dying_steps import Crash, die_after
from tests.addons.logs import entries, kinds, open_lane, report


@pytest.fixture
def rootless(home: Home) -> Home:
    """A home whose log has begun, with keys ahead for two lanes and its root key elsewhere."""
    open_lane(home, "cli", vault=False).close("done")
    for lane in ("main", "w0"):
        ahead_keys.certify(home, lane)
    shutil.move(home.paths.root_key, home.paths.folder.parent / "root.key")
    return Home.open(home.paths.folder)


def refused(home: Home, lane: str = "main") -> StartRefused:
    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(home.paths.folder), lane, vault=False).close("done")
    return caught.value


def test_a_lane_begins_with_the_key_that_lay_ready_and_leaves_nothing_there(rootless):
    ready = rootless.paths.ahead_key("main").read_bytes()
    lane = open_lane(rootless, vault=False)

    assert rootless.paths.lane_key("main").read_bytes() == ready
    lane.close("done")
    assert sorted(path.name for path in rootless.paths.ahead.iterdir()) == ["w0.cert", "w0.key"]
    assert kinds(rootless) == ["lane_open", "close"]
    assert report(rootless).result == "verified"


def test_a_lane_that_began_so_rotates_crashes_and_is_adopted_without_the_root_key(rootless):
    lane = open_lane(rootless, vault=False)
    lane.rotate("operator")
    lane.write_now("policy_load", {"policy": "00" * 32, "files": [], "mode": "enforce", "kernel": {}})
    os.close(lane._lock)
    other = open_lane(Home.open(rootless.paths.folder), "w0", vault=False)
    other.close("done")

    assert kinds(rootless)[-1] == "close"
    assert entries(rootless, "w0")[0]["siblings"][1]["lane"] == "main"
    assert report(rootless).result == "verified"


def test_a_lane_that_was_not_certified_is_refused_with_the_command_that_certifies_it(rootless):
    problem = refused(rootless, "w1")

    assert problem.code is StartCode.HOME_INCOMPLETE
    assert f"governor init --home {rootless.paths.folder} --root-key SOURCE --lanes N" in problem.text
    assert not rootless.paths.lane_key("w1").exists()
    assert refused(rootless, "w1").code is StartCode.HOME_INCOMPLETE


def test_a_lane_that_lost_its_log_does_not_begin_again_with_a_key_put_back(rootless):
    kept = [(path, path.read_bytes()) for path in rootless.paths.ahead.glob("main.*")]
    open_lane(rootless, vault=False).close("done")
    for path, content in kept:
        durable.replace(path, content)
    shutil.rmtree(rootless.paths.lane("main"))

    with pytest.raises(StartRefused) as caught:
        Home.open(rootless.paths.folder)
    assert caught.value.code is StartCode.HOME_INCOMPLETE


def another_lanes_certificate(home: Home) -> None:
    shutil.copy(home.paths.ahead_certificate("w0"), home.paths.ahead_certificate("main"))


def another_lanes_key(home: Home) -> None:
    shutil.copy(home.paths.ahead_key("w0"), home.paths.ahead_key("main"))


def both_of_another_lane(home: Home) -> None:
    another_lanes_certificate(home)
    another_lanes_key(home)


def a_key_of_somebody(home: Home) -> None:
    SigningKey.create(home.paths.ahead_key("main"), note.lane_name(home.log_id, "main"))


def a_pair_of_somebody(home: Home) -> None:
    other = Home.open(home.paths.folder.parent / "other")
    key = SigningKey.create(home.paths.ahead_key("main"), note.lane_name(home.log_id, "main"))
    certificate = ahead_keys.certificate(other, key)
    durable.replace(home.paths.ahead_certificate("main"), f"{key.verifier_key}\n{certificate}\n".encode())


def written(content: bytes) -> Callable[[Home], None]:
    return lambda home: durable.replace(home.paths.ahead_certificate("main"), content)


@pytest.mark.parametrize("replace", [
    another_lanes_certificate, another_lanes_key, both_of_another_lane, a_key_of_somebody, a_pair_of_somebody,
    pytest.param(written(b""), id="empty"),
    pytest.param(written(b"\xff\0" * 2**16), id="garbage"),
    pytest.param(written(b"governor/0123456789abcdef/main+00000000+AAAA\nAAAA\n"), id="no key"),
])
def test_what_was_replaced_begins_no_lane(rootless, replace: Callable[[Home], None]):
    replace(rootless)

    problem = refused(rootless)
    shutil.copy(rootless.paths.folder.parent / "root.key", rootless.paths.root_key)

    assert problem.code is refused(rootless).code is StartCode.TAMPERED
    assert str(rootless.paths.ahead_certificate("main")) in problem.text
    assert not rootless.paths.lane_key("main").exists()


@pytest.mark.parametrize("name", ["main.key", "main.cert"])
def test_half_of_a_pair_begins_no_lane(rootless, name):
    (rootless.paths.ahead / name).unlink()

    assert ahead_keys.ready(rootless) == ["w0"]
    assert refused(rootless).code is StartCode.HOME_INCOMPLETE


@pytest.mark.parametrize("name", ["main.key", "main.cert"])
def test_a_pair_open_to_others_begins_no_lane(rootless, name):
    (rootless.paths.ahead / name).chmod(0o640)

    assert refused(rootless).code is StartCode.KEY_PERMISSIONS


def test_a_key_that_lies_there_without_a_certificate_is_not_the_one_that_is_certified(home):
    durable.make_folder(home.paths.ahead)
    planted = SigningKey.create(home.paths.ahead_key("w0"), note.lane_name(home.log_id, "w0"))
    ahead_keys.certify(home, "w0")

    ready = ahead_keys.lying_ready(home, "w0")
    assert ready is not None
    assert ready.public != planted.public


def test_certifying_again_changes_nothing(rootless):
    before = {path: path.read_bytes() for path in rootless.paths.keys.rglob("*") if path.is_file()}
    for lane in ("main", "cli", "w0"):
        ahead_keys.certify(rootless, lane)

    assert before == {path: path.read_bytes() for path in rootless.paths.keys.rglob("*") if path.is_file()}


def test_with_the_root_key_at_hand_a_lane_begins_that_nobody_certified_ahead(rootless):
    shutil.move(rootless.paths.folder.parent / "root.key", rootless.paths.root_key)
    open_lane(Home.open(rootless.paths.folder), "w7", vault=False).close("done")

    assert report(rootless).result == "verified"


STEPS = ((durable, "replace"), (durable, "sync_folder"), (durable, "write_all"), (os, "rename"))


def test_a_crash_at_any_step_of_a_beginning_is_put_in_order_by_the_next_start(rootless, tmp_path, monkeypatch):
    crashed = 0
    while True:
        folder = tmp_path / f"copy-{crashed}"
        shutil.copytree(rootless.paths.folder, folder)
        with monkeypatch.context() as patched:
            die_after(crashed, patched, STEPS)
            try:
                lane = open_lane(Home.open(folder), vault=False)
            except Crash:
                pass
            else:
                lane.close("done")
                break
        crashed += 1
        open_lane(Home.open(folder), vault=False).close("done")

        assert report(Home.open(folder)).result == "verified"
        assert sorted(path.name for path in (folder / "keys" / "ahead").iterdir()) == ["w0.cert", "w0.key"]

    assert crashed > 5


def test_a_crash_at_any_step_of_certifying_is_put_in_order_by_the_next_try(home, tmp_path, monkeypatch):
    open_lane(home, "cli", vault=False).close("done")
    for at in range(20):
        folder = tmp_path / f"copy-{at}"
        shutil.copytree(home.paths.folder, folder)
        copy = Home.open(folder)
        with monkeypatch.context() as patched:
            die_after(at, patched, STEPS)
            try:
                ahead_keys.certify(copy, "main")
            except Crash:
                pass
            else:
                break
        ahead_keys.certify(copy, "main")
        copy.paths.root_key.unlink()
        open_lane(Home.open(folder), vault=False).close("done")

        assert report(Home.open(folder)).result == "verified"
    assert 3 < at < 19


def test_a_key_taken_before_a_crash_is_certified_as_it_is(rootless, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ahead_keys, "certificate_of", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            open_lane(rootless, vault=False)
    taken = rootless.paths.lane_key("main").read_bytes()
    rootless.paths.ahead_certificate("main").unlink()
    assert refused(rootless).code is StartCode.HOME_INCOMPLETE
    shutil.copy(rootless.paths.folder.parent / "root.key", rootless.paths.root_key)
    ahead_keys.certify(rootless, "main")
    rootless.paths.root_key.unlink()
    open_lane(Home.open(rootless.paths.folder), vault=False).close("done")

    assert rootless.paths.lane_key("main").read_bytes() == taken
    assert report(rootless).result == "verified"
