"""The vault: values that can be read again, erased, or never kept."""

from __future__ import annotations

import asyncio
import sqlite3
import stat

import pytest

from addons.errors import StartCode, StartRefused
from addons.journal import Secret
from addons.vault import Vault
from kernel import entry
from tests.addons.logs import decision, entries, kinds, open_lane, report


async def test_a_kept_value_opens_the_commitment_in_the_log(home):
    lane = open_lane(home)
    number, durable = lane.commit("decision", decision("f"), {"path": "/käse"})
    await durable
    lane.close("done")

    salt, value = _lookup(home, "main", number)["path"]
    assert value == '"/käse"'
    assert len(salt) == 32
    assert entry.commitment(salt, "path", value.encode()) == entries(home)[number]["in"]["path$c"]


async def test_equal_values_have_commitments_that_do_not_tell(home):
    lane = open_lane(home)
    for _ in range(2):
        await lane.commit("decision", decision("f"), {"path": "/same"})[1]
    lane.close("done")

    first, second = (each["in"]["path$c"] for each in entries(home)[2:4])
    assert first != second


async def test_an_erased_value_leaves_the_log_as_it_was(home):
    lane = open_lane(home)
    number, durable = lane.commit("decision", decision("f"), {"path": "/secret"})
    await durable
    lane.close("done")
    with sqlite3.connect(home.paths.vault) as database:
        database.execute('DELETE FROM "values"')

    assert _lookup(home, "main", number) == {}
    assert report(home).result == "verified"


async def test_without_a_vault_nothing_is_kept_and_the_field_is_still_there(home):
    lane = open_lane(home, vault=False)
    await lane.commit("decision", decision("f"), {"path": "/secret"})[1]
    lane.close("done")

    assert not home.paths.vault.exists()
    assert len(entries(home)[2]["in"]["path$c"]) == 64


async def test_a_vault_that_fails_is_told_in_the_log_and_does_not_stop_it(home, monkeypatch):
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Vault, "keep", fail)
    monkeypatch.setattr("addons.keeper.VAULT_SECONDS", 0.0)
    lane = open_lane(home)
    await lane.commit("decision", decision("f"), {"path": "/secret"})[1]
    async with asyncio.timeout(10):
        while lane.next_seq < 4:
            await asyncio.sleep(0.001)
    await lane.commit("decision", decision("g"), {"path": "/secret"})[1]
    lane.close("done")

    assert kinds(home)[2:] == ["decision", "fault", "decision", "close"]
    assert (entries(home)[3]["where"], entries(home)[3]["error"]) == ("vault", "OperationalError")


def test_its_files_are_private(tmp_path):
    vault = Vault.open(tmp_path / "vault.db")
    vault.keep("main", [Secret(1, "path", b"s" * 32, '"v"')])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    vault.close()

    assert set(modes.values()) == {0o600}


def test_lanes_and_entries_do_not_mix(tmp_path):
    vault = Vault.open(tmp_path / "vault.db")
    vault.keep("main", [Secret(1, "path", b"a", "1"), Secret(1, "query", b"b", "2"), Secret(2, "path", b"c", "3")])
    vault.keep("cli", [Secret(1, "path", b"d", "4")])

    assert vault.lookup("main", 1) == {"path": (b"a", "1"), "query": (b"b", "2")}
    assert vault.lookup("cli", 1) == {"path": (b"d", "4")}
    assert vault.lookup("cli", 2) == {}
    vault.close()


def test_a_damaged_vault_refuses_to_start(home):
    home.paths.vault.touch(0o600)
    home.paths.vault.write_bytes(b"not a database" * 100)

    with pytest.raises(StartRefused) as caught:
        open_lane(home)

    assert caught.value.code is StartCode.HOME_UNWRITABLE


def _lookup(home, lane: str, number: int) -> dict[str, tuple[bytes, str]]:
    vault = Vault.open(home.paths.vault)
    try:
        return vault.lookup(lane, number)
    finally:
        vault.close()


