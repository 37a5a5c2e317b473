"""What several processes have in common in a home: each may be there, and none takes from another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from addons import ahead_keys, opening, policy_store
from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.home_lock import home_lock
from addons.identity import Registry
from addons.snapshots import Snapshots
from addons.vault import Vault
from kernel.folding import States
from kernel.state import State
from tests.addons.logs import open_lane
from tests.conftest import scaled

ROOT = Path(__file__).resolve().parents[2]
KEEPING = """\
import sys
from pathlib import Path
from addons.journal import Secret
from addons.vault import Vault
path, lane, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
vault = Vault.open(path)
for number in range(count):
    vault.keep(lane, [Secret(number, "path", b"salt", lane)])
vault.close()
"""
POLICY = b"version: 1\nrules:\n  - {allow: a, to: a.example.org, methods: reads}\n"


def test_only_one_governor_serves_from_a_home_and_the_next_one_after_it(home):
    with home_lock(home.paths):
        with pytest.raises(StartRefused, match="another Governor serves from") as refused, home_lock(home.paths):
            pass
        assert refused.value.code is StartCode.LANE_BUSY
    with home_lock(home.paths):
        pass


def test_a_vault_keeps_what_several_processes_give_it_at_once(home):
    count = scaled(300)
    Vault.open(home.paths.vault).close()
    keeping = [subprocess.Popen([sys.executable, "-c", KEEPING, str(home.paths.vault), lane, str(count)], cwd=ROOT)
               for lane in ("w0", "w1", "w2")]

    assert [process.wait(120) for process in keeping] == [0, 0, 0]
    vault = Vault.open(home.paths.vault)
    for lane in ("w0", "w1", "w2"):
        assert all(vault.lookup(lane, number) == {"path": (b"salt", lane)} for number in range(count))
    vault.close()


def test_a_lane_at_which_somebody_looks_is_waited_for(home):
    folder = home.paths.lane("w0")
    open_lane(home, "w0").close("done")
    look = opening._try_lock(folder)
    assert look is not None
    with pytest.raises(StartRefused, match="LANE_BUSY"):
        opening.take(home, "w0")
    threading.Timer(0.2, os.close, [look]).start()

    open_lane(home, "w0", patience_seconds=10.0).close("done")


def test_a_state_of_another_lane_that_goes_meanwhile_is_no_fault(home, monkeypatch):
    lane = open_lane(home, "w0")
    snapshots = Snapshots(home.paths, lane, States(State(), State()))
    gone = home.paths.states / "gone.json"
    listed = type(home.paths.states).iterdir
    monkeypatch.setattr(type(home.paths.states), "iterdir", lambda folder: iter([*listed(folder), gone]))
    snapshots.finish()
    lane.close("done")

    content = (home.paths.lane("w0") / "000000.jsonl").read_text()
    assert '"type":"state_snapshot"' in content
    assert '"type":"fault"' not in content


def kept_policy(home: Home, content: bytes = POLICY) -> tuple[Path, str]:
    file = home.paths.folder / "policy.yaml"
    file.write_bytes(content)
    governed = policy_store.first([file], home.paths, Registry(home.paths.agents))
    policy_store.keep(governed, home.paths)
    return file, governed.policy.digest


def test_a_policy_is_taken_as_it_was_kept_whatever_its_file_says_by_now(home):
    file, digest = kept_policy(home)
    file.write_text("version: 1\nrules: nonsense\n")
    taken = policy_store.kept(digest, [file], home.paths, Registry(home.paths.agents))

    assert taken.policy.digest == digest
    assert taken.files == (file,)


def test_several_files_are_taken_as_they_were_kept(home):
    files = [home.paths.folder / name for name in ("one.yaml", "two.yaml")]
    files[0].write_bytes(b"tier: platform\n" + POLICY)
    files[1].write_bytes(b"tier: team\nfor: [coder-*]\n" + POLICY.replace(b"allow: a", b"allow: b"))
    registry = Registry(home.paths.agents)
    governed = policy_store.first(files, home.paths, registry)
    policy_store.keep(governed, home.paths)

    assert policy_store.kept(governed.policy.digest, files, home.paths, registry).policy == governed.policy


@pytest.mark.parametrize(("harm", "code"), [
    pytest.param(lambda path: path.write_bytes(POLICY + b"# more\n"), StartCode.TAMPERED, id="changed"),
    pytest.param(lambda path: path.unlink(), StartCode.POLICY_MISSING, id="gone"),
])
def test_a_kept_policy_that_is_another_by_now_is_refused(home, harm, code):
    file, digest = kept_policy(home)
    harm(home.paths.policies / f"{digest}.yaml")

    with pytest.raises(StartRefused) as refused:
        policy_store.kept(digest, [file], home.paths, Registry(home.paths.agents))
    assert refused.value.code is code


def test_a_lane_that_nobody_could_certify_is_refused_before_it_begins(home):
    open_lane(home, "main").close("done")
    ahead_keys.certify(home, "w0")
    home.paths.root_key.rename(home.paths.folder / "away")

    for lane in ("main", "w0"):
        ahead_keys.demand(home, lane)
    with pytest.raises(StartRefused, match="HOME_INCOMPLETE"):
        ahead_keys.demand(home, "w1")
