"""Entries as lines for people. What agents chose is escaped: nothing in it can move a cursor or pass for a line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from addons.audit_view import Entry, agent_of
from addons.lease_text import lease_text
from kernel.entry import commitment
from kernel.normal import OWN_PORTS

_COLOURS = {"allow": "green", "throttle": "yellow", "ask": "yellow", "deny": "red", "halt": "magenta"}
_COMMON = frozenset(("v", "type", "seq", "prev", "ts", "mono_us", "lane"))


class Vault:
    """The values behind commitments, read only; without the file, or without a row, there are none."""

    def __init__(self, path: Path) -> None:
        self.present = path.is_file()
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) if self.present else None

    def value(self, entry: Entry, name: str, expected: str) -> str:
        """The canonical value that `expected` commits to, or words in brackets that say why there is none."""
        row = self._row(entry, name)
        if row is None:
            return "[erased]" if self.present else "[not in this copy]"
        salt, value = row
        if value.startswith("["):
            return f"[secret; the vault says that it matched {escaped(value)}]"
        good = len(salt) == 32 and commitment(salt, name, value.encode()) == expected
        return value if good else "[the vault holds another value]"

    def _row(self, entry: Entry, name: str) -> tuple[bytes, str] | None:
        if self._database is None:
            return None
        query = 'SELECT salt, value FROM "values" WHERE lane = ? AND seq = ? AND name = ?'
        try:
            row = self._database.execute(query, (entry.get("lane"), entry.get("seq"), name)).fetchone()
        except sqlite3.Error:
            return None
        return row if row is not None and isinstance(row[0], bytes) and isinstance(row[1], str) else None


def escaped(text: str) -> str:
    """`text` with every character that does not print (controls, bidi, odd spaces) as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def json_text(value: object) -> str:
    """One JSON document for `--json`, readable and always text."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:
        # The name of a file that is no text holds lone surrogates, which only JSON has a spelling for.
        return json.dumps(value, indent=2)
    return text


def as_text(entry: Entry, vault: Vault, *, coloured: bool) -> str:
    """One entry in one line: time, name, type, and what it says."""
    kind = str(entry.get("type"))
    name = f"{entry.get('lane')}/{entry.get('seq')}"
    said = _decision(entry, vault) if kind == "decision" else _lease(entry) if kind == "lease" else _fields(entry)
    verdict = str(entry.get("verdict", "")) if kind == "decision" else ""
    head = escaped(f"{entry['ts']}  {name:<12} {kind:<11} ")
    if coloured and verdict in _COLOURS:
        import click

        return head + click.style(f"{verdict:<8} ", fg=_COLOURS[verdict]) + escaped(said)
    return head + escaped(f"{verdict:<8} {said}" if verdict else said)


def _decision(entry: Entry, vault: Vault) -> str:
    facts = entry.get("in")
    facts = facts if isinstance(facts, dict) else {}
    rule = f"rule {entry['rule']}" if entry.get("rule") else "no rule"
    what = (_name(entry, facts, vault) if entry.get("stage") == "dns" else
            f"{facts.get('method') or entry.get('stage')} {_url(entry, facts, vault)}")
    return f"{agent_of(entry) or '-'}  {what}  {entry.get('code')}, {rule}: {entry.get('reason')}"


def _url(entry: Entry, facts: dict[str, Any], vault: Vault) -> str:
    port = (
        "" if facts.get("port") in (None, OWN_PORTS.get(str(facts.get("scheme")))) else facts["port"]
    )
    host = _host(entry, facts, vault)
    place = f"{facts.get('scheme') or '?'}://{host}{f':{port}' if port else ''}"
    path = _opened(entry, facts, vault, "path")
    return place if path is None else place + (path if path.startswith("/") else f"/{path}")


def _host(entry: Entry, facts: dict[str, Any], vault: Vault) -> str:
    opened = _opened(entry, facts, vault, "host")
    return opened if opened and not opened.startswith("[") else facts.get("host") or "?"


def _name(entry: Entry, facts: dict[str, Any], vault: Vault) -> str:
    """A question for a name, and the first address that it was answered with."""
    told = f" {facts['address']}" if facts.get("address") else ""
    return f"dns {facts.get('record')} {_host(entry, facts, vault)}{told}"


def _opened(entry: Entry, facts: dict[str, Any], vault: Vault, name: str) -> str | None:
    """The value behind the commitment `NAME$c`, words in brackets where it cannot be had, None where there is none."""
    committed = facts.get(f"{name}$c")
    return _text(vault.value(entry, name, committed)) if isinstance(committed, str) else None


def _text(value: str) -> str:
    """A canonical string without its quotes. Its escapes stay: they are harmless as they stand."""
    return value.removeprefix('"').removesuffix('"')


def _lease(entry: Entry) -> str:
    return lease_text(entry) or _fields(entry)


def _fields(entry: Entry) -> str:
    shown = ((name, value) for name, value in entry.items() if name not in _COMMON and value is not None)
    return "  ".join(f"{name}={_short(value)}" for name, value in shown)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= 120 else f"{text[:117]}..."
