"""How agents stand, as text for people: the table of `agents list` and the page of `agents show`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from addons.verbs.output import console, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS = 40
_HELD_BACK = ("quarantined", "throttled")
_STYLES = {"halted": "bold red", "quarantined": "yellow", "throttled": "yellow", "revoked": "dim"}
_ORDER = ("halted", *_HELD_BACK, "running", "revoked")
_CELLS = 8
_NO_TERMINAL_COLUMNS = 500

type Row = dict[str, Any]


def tell_rows(rows: Sequence[Row], now: datetime, *, everyone: bool) -> None:
    """The table, who is held back first; at most forty rows unless everyone is asked for."""
    if not rows:
        console().print("no agent has a token: every flow is the agent local (governor agents add NAME)")
        return
    ordered = sorted(rows, key=lambda row: (_ORDER.index(row["state"]), row["id"]))
    shown = ordered if everyone else ordered[:MOST_ROWS]
    table = Table("agent", "state", "why", "budget", "risk", "last seen", box=None, pad_edge=False)
    for row in shown:
        risk = "" if row["risk"] is None else str(row["risk"])
        seen = age(row["last_seen"], now) if row["last_seen"] else "never"
        table.add_row(row["id"], state(row), _came_to(row), _nearest(row["budgets"]), risk, seen)
    tell_table(table)
    if len(shown) < len(rows):
        console().print(f"{len(shown)} of {len(rows):,} shown (--all shows every one)")
    held_back = [row["id"] for row in shown if row["state"] in ("halted", *_HELD_BACK)]
    if held_back:
        console().print(f"more: governor agents show {held_back[0]}")


def tell_system(system: Row) -> None:
    """A line where all agents are halted."""
    if system["halted"]:
        said = f"since {moment(system['since'])} by {system['by']}: {system['reason']}"
        console().print(f"ALL AGENTS ARE HALTED {said}; governor agents release --all ends that", style="bold red")


def tell_agent(row: Row, now: datetime) -> None:
    """Everything about one agent."""
    out = console()
    out.print(Text.assemble(row["id"], "  ", state(row), *_since(row, now)))
    lines = {
        "reason": _reason(row),
        "until": moment(row["until"]) if row["until"] else "",
        "entry": row["entry"] or "",
        "cause": _cause(row["cause"]),
        "closed": f"{', '.join(row['sources'])} to whoever has no identity" if row["sources"] else "",
        "seen": f"{moment(row['last_seen'])}, {age(row['last_seen'], now)} ago" if row["last_seen"] else "never",
        "open": counted(row["open"], "flow"),
        "session": f"{row['session']}, epoch {row['epoch']}",
    }
    for name, said in lines.items():
        if said:
            out.print(f"  {name:8} {said}")
    for title, balances in (("budgets", row["budgets"]), ("counters", row["counters"])):
        if balances:
            out.print(f"  {title}")
            tell_balances(balances)
    if row["state"] in ("halted", *_HELD_BACK):
        whom = "--all" if row["with_all"] else row["id"]
        out.print(f"  it goes on after: governor agents release {whom} --reason TEXT")


def state(row: Row) -> Text:
    """The word for a state; it is not the colour that says it."""
    word = row["state"].upper() if row["state"] == "halted" else row["state"]
    return Text(word, style=_STYLES.get(row["state"], ""))


def moment(ts: str) -> str:
    """A time of the log as people read it."""
    return f"{ts[:10]} {ts[11:19]} UTC"


def tell_balances(balances: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in balances:
        held = f", {each['held']:,} held" if each["held"] else ""
        whose = "" if each["each"] else "all together"
        used = f"{each['spent'] + each['held']:,} of {each['limit']:,}{held}"
        table.add_row("   ", each["budget"], each["unit"], _bar(each), used, f"{each['remaining']:,} left", whose)
    tell_table(table)


def tell_table(table: Table) -> None:
    """The table with one row in a line where it is no terminal that must hold it."""
    out = console()
    if not out.is_terminal:
        out.width = _NO_TERMINAL_COLUMNS
    out.print(table)


def _came_to(row: Row) -> str:
    if row["state"] == "halted":
        return f"{row['reason']} {moment(row['since'])} by {row['by']}"
    if row["state"] in _HELD_BACK:
        how = "reads only" if row["state"] == "quarantined" else "is slowed down"
        return f"{how} until {moment(row['until'])} by {row['by']}"
    return ""


def _cause(cause: Row | None) -> str:
    return "" if cause is None else f"{' > '.join(cause['path'])} ({cause['entry']})"


def _since(row: Row, now: datetime) -> tuple[str, ...]:
    if not row["since"]:
        return ()
    return (f" since {moment(row['since'])}, {age(row['since'], now)} ago, by {row['by']}",)


def _reason(row: Row) -> str:
    parts = (row["reason"], f"({row['rule']})" if row["rule"] else None)
    said = " ".join(part for part in parts if part)
    return f"{said}: {row['why']}" if row["why"] else said


def _nearest(balances: Sequence[Row]) -> str:
    """The amount that is nearest its end."""
    if not balances:
        return ""
    least = max(balances, key=lambda each: (each["spent"] + each["held"]) / each["limit"])
    return f"{_bar(least)} {least['budget']} {least['spent'] + least['held']:,}/{least['limit']:,} {least['unit']}"


def _bar(balance: Row) -> str:
    full: int = min(_CELLS, (balance["spent"] + balance["held"]) * _CELLS // balance["limit"])
    return "█" * full + "░" * (_CELLS - full)


def age(ts: str, now: datetime) -> str:
    seconds = max(0, int((now - datetime.fromisoformat(ts).astimezone(UTC)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
