"""The ledger in a file: private, whole or refused, waiting for others no longer than it says, and not an older copy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from functools import partial

import pytest

from addons.pools import in_file
from addons.pools.in_file import FileLedger
from addons.pools.opening import open_ledger
from addons.pools.protocol import LedgerError, NewsUnreadable
from kernel.leases import Ask, Kind, News, Purse, Settled, Why
from kernel.ledger import calls

PURSE = Purse("llm", "requests", "", 0)
HOLDER = "governor/x/w0"


def now_us():
    return time.time_ns() // 1000


def ask(ledger, number, least=10, **more):
    return ledger.acquire(HOLDER, "r1", [Ask(number, PURSE, 100, least, least, **more)], now_us())[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pool.db"


def opened(path):
    return closing(FileLedger(path))


def test_every_file_of_a_ledger_is_its_owners_alone(path):
    path.touch(mode=0o644)
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == dict.fromkeys(("pool.db", "pool.db-wal", "pool.db-shm", "pool.db.count"), 0o600)


def test_what_was_granted_is_there_again(path):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        granted, server = ask(ledger, 1), ledger.overview().server
    with opened(path) as ledger:
        assert ask(ledger, 1) == granted
        assert ledger.overview().server == server


def test_two_that_open_it_share_it(path):
    with opened(path) as one, opened(path) as other:
        one.join(HOLDER, "r1", {})
        other.settle(HOLDER, [Settled(ask(one, 1).lease, 4)])

        assert [balance.spent for balance in one.overview().balances] == [4]


@pytest.mark.parametrize("question", ["look", "overview"])
def test_who_draws_does_not_wait_for_who_looks_and_that_sees_one_moment(path, monkeypatch, question):
    with opened(path) as one, opened(path) as other:
        one.join(HOLDER, "r1", {})
        ask(one, 1)

        def meanwhile(draft, *_):
            before = list(draft.accounts.under())
            began = time.monotonic()
            ask(other, 2)
            return before, list(draft.accounts.under()), time.monotonic() - began

        monkeypatch.setattr(calls, question, meanwhile)
        before, after, waited = getattr(one, question)()
        monkeypatch.undo()

        assert (before, waited < 1) == (after, True)
        assert one.overview().balances[0].held == 20


def test_news_of_a_newer_version_are_an_error_that_says_so(path):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        ledger.tell(HOLDER, News(Kind.HALT, "coder", "x/w0/1", {"type": "halt"}))
        ledger._database.execute("UPDATE news SET kind = 'novel'")

        with pytest.raises(NewsUnreadable, match="news 1 of the ledger: kind 'novel' is not known here"):
            ledger.beat(HOLDER, "r1", 0, now_us(), {})


def test_a_file_system_on_which_who_reads_keeps_others_from_writing_is_refused(path, monkeypatch):
    class Elsewhere(sqlite3.Connection):
        def execute(self, text, *more):
            return super().execute("SELECT 'delete'" if text == "PRAGMA journal_mode=WAL" else text, *more)

    monkeypatch.setattr(in_file.sqlite3, "connect",
                        partial(sqlite3.connect, factory=Elsewhere))
    with pytest.raises(LedgerError, match="cannot keep a ledger"):
        FileLedger(path)


@pytest.mark.parametrize(("content", "said"), [
    pytest.param(b"not a database, but long enough to be looked at as one " * 40, "not a database", id="text"),
    pytest.param(b"SQLite format 3\0" + b"\xff" * 4080, "cannot be used", id="a torn header"),
])
def test_a_file_that_is_no_database_is_refused(path, content, said):
    path.write_bytes(content)

    with pytest.raises(LedgerError, match=said) as refused:
        FileLedger(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_is_refused_and_left_alone(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE theirs(x)")
    before = path.read_bytes()

    with pytest.raises(LedgerError, match="no ledger of Governor"):
        FileLedger(path)
    assert path.read_bytes() == before


def test_a_ledger_of_another_version_is_refused(path):
    FileLedger(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=7")

    with pytest.raises(LedgerError, match=r"is a ledger of version 7, and this Governor writes 1"):
        FileLedger(path)


def test_a_damaged_ledger_is_refused(path):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {"long": "x" * 100_000})
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(65536))

    with pytest.raises(LedgerError, match=r"pool\.db"):
        FileLedger(path)


@pytest.mark.parametrize("name", ["absent/pool.db", "."])
def test_a_place_where_no_file_can_be_is_refused(tmp_path, name):
    with pytest.raises(LedgerError, match="cannot be opened"):
        FileLedger(tmp_path / name)


def test_a_call_waits_for_another_process_no_longer_than_it_says(path, monkeypatch):
    monkeypatch.setattr(in_file, "BUSY_SECONDS", 0.2)
    with opened(path) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger.join(HOLDER, "r1", {})
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            ask(ledger, 1)
        other.execute("ROLLBACK")

        assert ledger.overview().balances == ()
        assert ask(ledger, 1).lease == 1


def test_a_call_that_fails_half_way_has_done_nothing(path, monkeypatch):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        monkeypatch.setitem(in_file._PUT, "asks", "INSERT INTO nowhere VALUES (?, ?, ?, ?)")
        with pytest.raises(LedgerError, match="nowhere"):
            ask(ledger, 1)
        monkeypatch.undo()

        assert ledger.overview().balances == ()
        assert ask(ledger, 1).lease == 1


def test_a_ledger_whose_file_was_replaced_while_it_was_open_is_used_no_more(path):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").rename(path)

        with pytest.raises(LedgerError, match="another file was put in its place"):
            ask(ledger, 1)


@pytest.mark.parametrize("back", [
    pytest.param(lambda old, path: old.rename(path), id="renamed"),
    pytest.param(shutil.copyfile, id="written over it"),
])
def test_an_older_copy_is_noticed_and_waits_for_what_processes_say(path, back):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        ask(ledger, 1)
    old = path.with_suffix(".old")
    shutil.copyfile(path, old)
    with opened(path) as ledger:
        ask(ledger, 2)
        server = ledger.overview().server
    back(old, path)
    with opened(path) as ledger:
        beat = ledger.beat(HOLDER, "r1", 0, now_us(), {})

        assert (beat.repost, beat.server != server) == (True, True)
        assert ask(ledger, 3).why is Why.RECOVERING


def test_a_ledger_that_was_only_closed_is_the_same_one(path):
    for number in range(1, 4):
        with opened(path) as ledger:
            if number == 1:
                ledger.join(HOLDER, "r1", {})
            assert ask(ledger, number).lease == number


def test_a_heartbeat_waits_for_no_disk_and_what_binds_does(path, monkeypatch):
    with opened(path) as ledger:
        ledger.join(HOLDER, "r1", {})
        seen = []
        transact = ledger._transact

        def watch(call):
            seen.append(ledger._database.execute("PRAGMA synchronous").fetchone()[0])
            return transact(call)

        monkeypatch.setattr(ledger, "_transact", watch)
        ledger.beat(HOLDER, "r1", 0, now_us(), {})
        ask(ledger, 1, least=1, each_us=1000)
        ask(ledger, 2)
        ledger.settle(HOLDER, [Settled(1, 1)])

    normal, full = 1, 2
    assert seen == [normal, normal, full, full]


def test_processes_that_open_a_new_ledger_at_once_all_get_it(path):
    program = ("import sys; from pathlib import Path; from addons.pools.in_file import FileLedger\n"
               "sys.stdin.read(); FileLedger(Path(sys.argv[1])).join('governor/x/' + sys.argv[2], 'r1', {})")
    started = [subprocess.Popen([sys.executable, "-c", program, path, f"w{number}"], stdin=subprocess.PIPE)
               for number in range(6)]
    for process in started:
        process.stdin.close()

    assert [process.wait(60) for process in started] == [0] * 6
    with opened(path) as ledger:
        assert len(ledger.overview().members) == 6


@pytest.mark.parametrize("url", ["", "memory:x", "sqlite:", "postgres://h", "redis:h", "file.db", "x" * 99])
def test_a_url_of_no_ledger_is_refused(url):
    with pytest.raises(LedgerError, match=r"names no ledger; say memory:, sqlite:PATH"):
        open_ledger(url)


def test_a_url_opens_its_ledger(path):
    with closing(open_ledger(f"sqlite:{path}")) as ledger, closing(open_ledger("memory:")) as other:
        ledger.join(HOLDER, "r1", {})
        other.join(HOLDER, "r1", {})

        assert ask(ledger, 1).amount == ask(other, 1).amount == 10
