"""The vault: the values behind the log's commitments, with their salts. Erasing a row leaves the log as it is."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Self

from addons import durable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from addons.journal import Secret

_SCHEMA = """
CREATE TABLE IF NOT EXISTS "values"(
    lane TEXT, seq INTEGER, name TEXT, salt BLOB, value TEXT, PRIMARY KEY(lane, seq, name)
) WITHOUT ROWID
"""
# Several lanes may share a vault; a writer waits this long for another before it gives up.
_BUSY_SECONDS = 10.0


class Vault:
    """`vault.db`. `sqlite3.Error` and `OSError` come through: what to do without a vault is the caller's to say."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """The vault at `path`, made when absent, readable by its owner alone; for use in any one thread at a time."""
        # SQLite gives its side files the mode of the database, so the database is made before SQLite sees it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, durable.PRIVATE_FILE))
        os.chmod(path, durable.PRIVATE_FILE)
        database = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            # An erased value must not stay readable in a freed page.
            database.execute("PRAGMA secure_delete=ON")
            database.execute(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return cls(database)

    def keep(self, lane: str, secrets: Iterable[Secret]) -> None:
        """Store the secrets of one lane in one transaction."""
        rows = [(lane, secret.seq, secret.name, secret.salt, secret.value) for secret in secrets]
        with self._database:
            self._database.executemany('INSERT OR REPLACE INTO "values" VALUES (?, ?, ?, ?, ?)', rows)

    def lookup(self, lane: str, seq: int) -> dict[str, tuple[bytes, str]]:
        """Name to (salt, canonical value) of one entry; empty where nothing was kept or it was erased."""
        query = 'SELECT name, salt, value FROM "values" WHERE lane = ? AND seq = ?'
        return {name: (salt, value) for name, salt, value in self._database.execute(query, (lane, seq))}

    def close(self) -> None:
        self._database.close()
