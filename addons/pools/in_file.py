"""A ledger in a SQLite file, for the processes of one host."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addons import durable
from addons.pools.by_tables import LedgerByTables
from addons.pools.protocol import LedgerError
from kernel.ledger.tables import SHAPES, Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kernel.leases import Ask, Beat, Grant
    from kernel.ledger.tables import Shape

# "GovL": what a file says it is, and how its tables look.
_APPLICATION, _VERSION = 0x476F764C, 1
BUSY_SECONDS = 2.0
"""How long a call waits for other processes before it gives up."""


class FileLedger(LedgerByTables):
    """The ledger at `path`, made when absent, for its owner alone. `clock` gives microseconds since 1970.

    Whether the file is an older copy of itself is told by its inode, and by a count of its changes that lies beside it
    in PATH.count: written after each, never waited for.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._path, self._clock = path, clock
        try:
            self._inode = _made(path)
            self._count = _opened(path.with_name(path.name + ".count"))
        except OSError as fault:
            raise LedgerError(f"{path}: cannot be opened as a ledger: {fault.strerror}") from fault
        self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def acquire(self, holder: str, run: str, asks: Sequence[Ask], now_us: int) -> Sequence[Grant]:
        with self._quickly(quickly=all(ask.each_us > 0 for ask in asks)):
            return super().acquire(holder, run, asks, now_us)

    def beat(self, holder: str, run: str, seen: int, now_us: int, said: Mapping[str, object]) -> Beat:
        with self._quickly(quickly=True):
            return super().beat(holder, run, seen, now_us, said)

    def close(self) -> None:
        self._database.close()
        count, self._count = self._count, -1
        # Asked twice, the number may be another file's by then.
        if count >= 0:
            os.close(count)

    def _transact[T](self, call: Callable[[Draft], T]) -> T:
        with self._changing():
            server, changes = self._database.execute("SELECT server, changes FROM file").fetchone()
            draft = Draft(_Tables(self._database), server, self._clock())
            answer = call(draft)
            self._keep(draft, changes)
        return answer

    def _read[T](self, call: Callable[[Draft], T]) -> T:
        """In WAL what a transaction reads is as it was when it began, and whoever writes does not wait for it."""
        with self._transaction("BEGIN"):
            server, = self._database.execute("SELECT server FROM file").fetchone()
            return call(Draft(_Tables(self._database), server, self._clock()))

    def _keep(self, draft: Draft, changes: int) -> None:
        for name, rows in draft.changes().items():
            gone = [key for key, row in rows.items() if row is None]
            new = [(*key, *row) for key, row in rows.items() if row is not None]
            if gone:
                self._database.executemany(_DELETE[name], gone)
            if new:
                self._database.executemany(_PUT[name], new)
        self._database.execute("UPDATE file SET changes = ?", (changes + 1,))
        self._changes = changes + 1

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._transaction("BEGIN IMMEDIATE"):
            yield
        with self._faults():
            os.pwrite(self._count, b"%020d" % self._changes, 0)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        """All of it or nothing; `LedgerError` where it cannot be had, or ends in doubt."""
        with self._faults():
            self._database.execute(begin)
            try:
                self._check_in_place()
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError) as fault:
            raise LedgerError(f"{self._path}: the ledger cannot be used: {fault}") from fault

    def _check_in_place(self) -> None:
        if _inode(self._path) != self._inode:
            raise LedgerError(f"{self._path}: another file was put in its place; start this process again")

    @contextmanager
    def _quickly(self, *, quickly: bool) -> Iterator[None]:
        """Without waiting for the disk where what a crash of the host may take back is nothing that binds."""
        if not quickly:
            yield
            return
        with self._faults():
            self._database.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            with self._faults():
                self._database.execute("PRAGMA synchronous=FULL")

    def _open(self) -> None:
        with self._faults(), _alone(self._count):
            self._check_ours()
            self._write_ahead()
            self._database.execute("PRAGMA synchronous=FULL")
            self._check_whole()
            with self._changing():
                for statement in _SCHEMA:
                    self._database.execute(statement)
                self._recognise()

    def _write_ahead(self) -> None:
        # In any other mode whoever reads keeps others from writing.
        mode, = self._database.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise LedgerError(f"{self._path}: this file system cannot keep a ledger (SQLite has mode {mode}, not wal); "
                              "name a file on a local disk")

    def _check_ours(self) -> None:
        # The tables first: another process may be making them.
        tables, = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        application, = self._database.execute("PRAGMA application_id").fetchone()
        version, = self._database.execute("PRAGMA user_version").fetchone()
        if tables and application != _APPLICATION:
            raise LedgerError(f"{self._path}: is a database, and no ledger of Governor; name another file")
        if tables and version != _VERSION:
            raise LedgerError(f"{self._path}: is a ledger of version {version}, and this Governor writes {_VERSION}")

    def _check_whole(self) -> None:
        problem, = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise LedgerError(f"{self._path}: the ledger is damaged: {problem}; make it anew from the logs")

    def _recognise(self) -> None:
        """Give the file another name as a server where it is not what was here last."""
        found = os.pread(self._count, 20, 0)
        server, known, changes = self._database.execute(
            "SELECT server, inode, changes FROM file").fetchone() or ("", "", 0)
        if known != self._inode or changes < int(found or b"0"):
            server = secrets.token_hex(8)
        self._changes = changes + 1
        self._database.execute("INSERT OR REPLACE INTO file VALUES (0, ?, ?, ?)", (server, self._inode, self._changes))


class _Tables:
    """The tables of a database within a transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def table(self, name: str) -> _Table:
        return _Table(self._database, name, SHAPES[name])


class _Table:
    def __init__(self, database: sqlite3.Connection, name: str, shape: Shape) -> None:
        self._database, self._name, self._shape = database, name, shape

    def get(self, key: tuple[str | int, ...]) -> Any:
        row = self._database.execute(_GET[self._name], key).fetchone()
        return None if row is None else self._shape.row(*row)

    def under(self, *prefix: str | int) -> Iterable[tuple[tuple[Any, ...], Any]]:
        length, query = len(self._shape.key), _UNDER[self._name][len(prefix)]
        return [(row[:length], self._shape.row(*row[length:])) for row in self._database.execute(query, prefix)]


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _where(columns: Sequence[str]) -> str:
    return " AND ".join(f'"{column}" = ?' for column in columns) or "1"


def _row(shape: Shape) -> tuple[str, ...]:
    return shape.row._fields  # type: ignore[attr-defined, no-any-return]


_SCHEMA = [
    f"PRAGMA application_id={_APPLICATION}",
    f"PRAGMA user_version={_VERSION}",
    "CREATE TABLE IF NOT EXISTS file(one INTEGER PRIMARY KEY, server TEXT, inode TEXT, changes INTEGER)",
    *(f'CREATE TABLE IF NOT EXISTS "{name}"({_names((*shape.key, *_row(shape)))}, PRIMARY KEY({_names(shape.key)})) '
      "WITHOUT ROWID" for name, shape in SHAPES.items()),
]
_GET = {name: f'SELECT {_names(_row(shape))} FROM "{name}" WHERE {_where(shape.key)}'  # noqa: S608
        for name, shape in SHAPES.items()}
_UNDER = {name: [f'SELECT {_names((*shape.key, *_row(shape)))} FROM "{name}" WHERE {_where(shape.key[:length])}'  # noqa: S608
                 for length in range(len(shape.key) + 1)] for name, shape in SHAPES.items()}
_PUT = {name: f'INSERT OR REPLACE INTO "{name}" VALUES ({", ".join("?" * (len(shape.key) + len(_row(shape))))})'  # noqa: S608
        for name, shape in SHAPES.items()}
_DELETE = {name: f'DELETE FROM "{name}" WHERE {_where(shape.key)}' for name, shape in SHAPES.items()}  # noqa: S608


def _made(path: Path) -> str:
    """The inode of a private file, which is made where it is absent: SQLite gives its side files the same mode.

    One that is there is not opened: closing it would end the locks that SQLite holds on it within this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, durable.PRIVATE_FILE))
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    os.chmod(path, durable.PRIVATE_FILE)
    return _inode(path)


def _inode(path: Path) -> str:
    found = os.stat(path)
    return f"{found.st_dev}:{found.st_ino}"


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, durable.PRIVATE_FILE)


@contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """While no other process opens the ledger: SQLite does not wait for others where a file becomes a ledger."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
