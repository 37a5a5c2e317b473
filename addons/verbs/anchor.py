"""`governor audit anchor`: the places that keep heads of the log, how far each of them is, and what they must know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from addons.audit_log import AuditLog
from addons.audit_text import escaped
from addons.home import Home, home_folder
from addons.verbs.acting import home_option, json_option
from addons.verbs.anchor_s3 import add_s3_verbs
from addons.verbs.asking import usage_errors
from addons.verbs.output import console, print_json, progress

if TYPE_CHECKING:
    from addons.anchors.protocol import Anchor
    from addons.anchors.receipts import Newest
    from addons.anchors.settings import AnchorSettings


@click.group()
def anchor() -> None:
    """Keep heads of the log where this host cannot take them back.

    anchors.yaml in the home names the anchors; a running Governor takes the newest head of its log to each of them
    every minute and at each halt, policy, new segment and end.

    \b
    anchors:
      - file: /mnt/elsewhere/governor.notes
      - s3: s3://example-heads/governor
      - witness: https://w.example.org
        key: w.example.org+KEYID+BASE64
    every: 60s
    require: 1 of [s3, witness] within 10m
    otherwise: alert                    # or stop: nothing passes until it is met again
    segments: s3://example-heads/governor    # sealed segments go there, too
    """


add_s3_verbs(anchor)


@anchor.command("list", short_help="Show how far each anchor is, and what that leaves out.")
@home_option
@json_option
def list_anchors(home: str | None, as_json: bool) -> int:
    """Show each anchor, the newest head that it holds of each lane, and how much of the log that leaves out.

    It reads what is on this host. What an anchor itself says is asked by governor audit verify --anchor.

    Exit status: 0 shown, 1 anchors.yaml cannot be taken, 2 no log there.
    """
    from addons.anchors.receipts import Receipts

    opened = _opened(home)
    settings, anchors = _anchors(opened)
    newest, entries = Receipts(opened.paths.receipts).newest(), _entries(opened)
    rows = [_row(each, newest, entries, datetime.now(UTC)) for each in anchors]
    if as_json:
        required = settings.requirement
        print_json({"anchors": rows, "every_seconds": settings.every_seconds,
                    "require": None if required is None else str(required),
                    "otherwise": "stop" if settings.stops else "alert"})
    else:
        _tell_rows(rows, opened)
    return 0


@anchor.command(short_help="Take the newest heads to every anchor, at once.")
@home_option
@json_option
def now(home: str | None, as_json: bool) -> int:
    """Take the newest head of every lane to every anchor, at once, and say what each one answers.

    It works on the files of the home, with or without a running Governor: the receipts are kept beside the log, and the
    log itself tells of an anchoring that a running Governor did.

    Exit status: 0 every anchor holds every lane, 1 one does not or there is none, 2 no log there, 4 a lane has no
    signed head yet.
    """
    from addons.anchors.protocol import AnchorError
    from addons.anchors.receipts import Receipts
    from addons.anchors.signed_heads import newest_head

    opened = _opened(home)
    receipts, told = Receipts(opened.paths.receipts), list[dict[str, Any]]()
    anchors, lanes = _anchors(opened)[1], opened.lanes()
    status = 1 if not anchors else 4 if not lanes else 0
    with progress("anchoring", len(anchors) * len(lanes)) as step:
        for lane in lanes:
            try:
                note = newest_head(opened.paths.lane(lane))
            except AnchorError as problem:
                told.append({"lane": lane, "kind": None, "target": None, "size": None, "error": str(problem)})
                status = status or 4
                continue
            for each in anchors:
                answer: dict[str, Any] = {"lane": lane, "kind": each.kind, "target": each.target, "size": None,
                                          "error": None}
                try:
                    receipt = each.publish(lane, note)
                    receipts.add(receipt)
                    answer["size"] = receipt.size
                except AnchorError as problem:
                    answer["error"], status = str(problem), 1
                told.append(answer)
                step()
    if as_json:
        print_json({"anchored": told})
    else:
        _tell_answers(told)
    return status


@anchor.command(short_help="Print the keys that a witness must be given.")
@click.option("--lane", "more", multiple=True, metavar="NAME", help="A lane that has not begun yet, such as w0.")
@home_option
@json_option
def keys(more: tuple[str, ...], home: str | None, as_json: bool) -> int:
    """Print what a witness must be given of this log: for each lane its origin and the key that signs submissions.

    The key is made at the first use and stays, while the keys that sign the log change with every segment. It keeps
    strangers from having heads cosigned in this log's name; what a cosignature says of the log does not rest on it.

    Exit status: 0 printed, 2 wrong usage or no log there.
    """
    from addons.anchors.submission import submission_key
    from kernel.trust import is_lane

    for lane in more:
        if not is_lane(lane):
            raise click.BadParameter(f"{escaped(lane)} is no name of a lane", param_hint="--lane")
    opened = _opened(home)
    lanes = dict.fromkeys((*(opened.lanes() or ("main",)), *more))
    rows = [{"lane": lane, "origin": key.name, "key": key.verifier_key}
            for lane in lanes for key in [submission_key(opened, lane)]]
    if as_json:
        print_json({"keys": rows})
    else:
        for row in rows:
            console().print(row["key"])
    return 0


def _opened(home: str | None) -> Home:
    """The home, which must be there: asking for anchors makes none."""
    folder = home_folder(home)
    with usage_errors():
        AuditLog.at(folder)
    return Home.open(folder)


def _anchors(home: Home) -> tuple[AnchorSettings, list[Anchor]]:
    from addons.anchors.configured import anchors_of
    from addons.anchors.settings import read_settings

    settings = read_settings(home.paths.anchors, home.paths.folder)
    return settings, anchors_of(settings, home)


def _entries(home: Home) -> dict[str, int]:
    """How many entries the newest signed head of each lane has; 0 where it has none."""
    from addons.anchors.protocol import AnchorError
    from addons.anchors.signed_heads import newest_head
    from kernel.note import stated_checkpoint

    found = {}
    for lane in home.lanes():
        try:
            found[lane] = stated_checkpoint(newest_head(home.paths.lane(lane))).size
        except AnchorError:
            found[lane] = 0
    return found


def _row(each: Anchor, newest: Newest, entries: dict[str, int], at: datetime) -> dict[str, Any]:
    lanes = []
    for lane, size in entries.items():
        receipt = newest.get((each.kind, each.target, lane))
        held = 0 if receipt is None else receipt.size
        lanes.append({
            "lane": lane, "size": held, "behind": max(0, size - held),
            "at": None if receipt is None else receipt.at,
            "age_seconds": None if receipt is None else _seconds(receipt.at, at),
        })
    return {"kind": each.kind, "target": each.target, "lanes": lanes}


def _seconds(written: str, at: datetime) -> int | None:
    try:
        return int((at - datetime.fromisoformat(written)).total_seconds())
    except (ValueError, TypeError):
        return None


def _tell_rows(rows: list[dict[str, Any]], home: Home) -> None:
    said = console()
    if not rows:
        said.print(f"no anchors: the whole log rests on this host's word. {home.paths.anchors} names them; "
                   "governor audit anchor --help shows how")
    for row in rows:
        said.print(f"{row['kind']} {escaped(row['target'])}", style="bold")
        for lane in row["lanes"]:
            when = "never" if lane["at"] is None else f"{escaped(lane['at'])}, {lane['age_seconds']} s ago"
            left = f", {lane['behind']:,} entries behind" if lane["behind"] else ""
            said.print(f"  lane {lane['lane']}: {lane['size']:,} entries, {when}{left}")


def _tell_answers(told: list[dict[str, Any]]) -> None:
    for answer in told:
        where = "" if answer["kind"] is None else f"{answer['kind']} {escaped(answer['target'])}: "
        if answer["error"] is None:
            console().print(f"{where}lane {answer['lane']}, {answer['size']:,} entries")
        else:
            console(stderr=True).print(f"{where}lane {answer['lane']}: {escaped(answer['error'])}")
    if not told:
        console(stderr=True).print("governor: there is nothing to anchor, or no anchor: governor audit anchor list")
