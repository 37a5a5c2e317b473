"""`governor audit receipt`, `prove` and `sample`: proofs that hold without the log, with the root's key alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from addons import audit_log, proving
from addons.audit_log import AuditLog
from addons.audit_text import escaped
from addons.home import home_folder
from addons.verbs.asking import home_option, json_option, reading_bar, trust_option, usage_errors, where_argument
from addons.verbs.output import console, print_json
from kernel.consistency import Grown, write_consistency
from kernel.errors import CanonicalError, ProofError
from kernel.evidence import MAX_TEXT_BYTES
from kernel.note import Checkpoint, VerifierKey
from kernel.receipt import Proved, write_receipt
from kernel.report import Result
from kernel.trust import is_lane

MOST_DRAWN = 10_000
_SEQ = re.compile(r"0|[1-9][0-9]{0,15}")
_STYLES = {Result.VERIFIED: "bold green", Result.NOT_PINNED: "bold yellow", Result.TAMPERED: "bold red"}
_UNPINNED = "it holds together, but no pin and no --trust says whose log this is"

type Head = int | Path

_file = click.Path(path_type=Path, dir_okay=False)
_check_option = click.option("--check", type=_file, metavar="FILE", help="Verify this file, without the log.")
_output_option = click.option("--output", type=_file, metavar="FILE", help="Write it there, not to standard output.")


class EntryName(click.ParamType[tuple[str, int]]):
    """An entry by its name, as the log and `audit show` name it."""

    name = "LANE/SEQ"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        lane, _, seq = str(value).partition("/")
        if not is_lane(lane) or not _SEQ.fullmatch(seq):
            self.fail(f"{value}: expected the name of an entry, as main/1234", param, ctx)
        return lane, int(seq)


class HeadName(click.ParamType[Head]):
    """A signed checkpoint: how many entries it covers, or a file that holds it."""

    name = "N|FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        return int(value) if _SEQ.fullmatch(str(value)) else Path(str(value))


@click.command()
@click.argument("entry", metavar="[LANE/SEQ]", type=EntryName(), required=False)
@where_argument
@home_option
@_check_option
@trust_option
@_output_option
@json_option
def receipt(entry: tuple[str, int] | None, where: Path | None, home: str | None, check: Path | None,
            trust: str | None, output: Path | None, as_json: bool) -> int:
    """Print the receipt of an entry: proof for somebody who has nothing of this log but the root's verifier key.

    A receipt is a C2SP tlog-proof. It holds the line of the log, the way from it to the root of the smallest signed
    checkpoint that covers it, and the lines that certify the lane's keys. It proves that the entry was in the log when
    the checkpoint was signed; it says nothing of other entries.

    \b
    governor audit receipt main/1234 --output main-1234.tlog-proof
    governor audit receipt --check main-1234.tlog-proof --trust KEY

    Exit status: 0 made or verified, 1 tampered, 3 nothing pins the root key, 4 no checkpoint covers the entry yet,
    5 the log is shorter than its checkpoint, 2 no such entry or log.
    """
    if check is not None:
        if entry is not None or where is not None or output is not None:
            raise click.UsageError("--check reads its FILE and nothing else")
        return _check_receipt(check, trust, as_json=as_json)
    if entry is None:
        raise click.UsageError("expected the name of an entry (main/1234), or --check FILE")
    with _asked(where, home, trust) as prover:
        made, proved = prover.receipt(*entry)
    text = write_receipt(made)
    _hand_out(text, _proved_json(prover.result, proved) | {"receipt": text}, output, as_json=as_json)
    return _qualified(prover.result)


@click.command()
@click.option("--from", "old", type=HeadName(), help="The earlier checkpoint: how many entries it covers, or its file.")
@click.option("--to", "new", type=HeadName(), help="The later one; else the newest of the log.")
@click.option("--lane", default="main", show_default=True, help="Whose checkpoints they are.")
@where_argument
@home_option
@_check_option
@trust_option
@_output_option
@json_option
def prove(old: Head | None, new: Head | None, lane: str, where: Path | None, home: str | None, check: Path | None,
          trust: str | None, output: Path | None, as_json: bool) -> int:
    """Prove that of two signed checkpoints of a lane one grew from the other: nothing before it changed or went.

    A checkpoint is named by the number of entries that it covers, or by a file that holds it: an anchored note, or
    notes one after the other, of which the largest of the lane is taken. So whoever kept a checkpoint sees whether the
    log of today is still the one that it was signed over.

    \b
    governor audit prove --from anchored.note
    governor audit prove --from 1000 --to 250000 --output growth.proof
    governor audit prove --check growth.proof --trust KEY

    Exit status: 0 proved or verified, 1 tampered, 3 nothing pins the root key, 4 no checkpoint yet, 5 the log is
    shorter than a checkpoint, 2 no such checkpoint or log.
    """
    if check is not None:
        if (old, new, where, output) != (None, None, None, None):
            raise click.UsageError("--check reads its FILE and nothing else")
        return _check_growth(check, trust, as_json=as_json)
    if old is None:
        raise click.UsageError("--from is missing: which checkpoint shall the log have grown from?")
    with _asked(where, home, trust) as prover:
        made, grown = prover.growth(lane, old, new)
    text = write_consistency(made)
    as_told = _grown_json(prover.result, grown) | {"hashes": [each.hex() for each in made.proof], "proof": text}
    _hand_out(text, as_told, output, as_json=as_json)
    return _qualified(prover.result)


@click.command()
@click.option("--n", "count", type=click.IntRange(1, MOST_DRAWN), default=20, show_default=True, help="How many.")
@click.option("--seed", required=True, help="Any text that was not known while the log was written.")
@where_argument
@home_option
@trust_option
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write each receipt there, as LANE-SEQ.tlog-proof.")
@json_option
def sample(count: int, seed: str, where: Path | None, home: str | None, trust: str | None, output: Path | None,
           as_json: bool) -> int:
    """Draw entries from all lanes by a public rule, each with its receipt: the auditor chooses, not the operator.

    Which entries are drawn follows from the seed, the number and the newest signed heads alone (kernel/README.md,
    "Receipts"), so anybody can draw again. A seed that nobody could know while the log was written makes it a fair
    draw. It speaks of the entries that the log holds: `governor audit verify` says whether lanes or ends are missing.

    \b
    governor audit sample --n 20 --seed "the auditor's words" --output receipts/

    Exit status: 0 drawn and verified, 1 tampered, 3 nothing pins the root key, 4 no checkpoint yet, 5 the log is
    shorter than a checkpoint, 2 no log there.
    """
    with _asked(where, home, trust) as prover:
        try:
            draw = prover.draw(seed, count)
        except CanonicalError:
            raise click.UsageError("--seed: not a text") from None
        files = [_write_into(output, proved, write_receipt(made)) for made, proved in draw.receipts]
    if as_json:
        print_json(_draw_json(prover.result, seed, count, draw, files))
    else:
        _tell_draw(prover.result, draw, files)
    return prover.result.exit_code


@contextmanager
def _asked(where: Path | None, home: str | None, trust: str | None) -> Iterator[proving.Prover]:
    """The log that is asked for a proof. Where it cannot bear it out, that is told, and ends the verb."""
    with usage_errors():
        log = AuditLog.at(where or home_folder(home))
        with reading_bar(log, "proving") as progress:
            prover = proving.Prover.at(log, _trusted(trust), progress)
            try:
                yield prover
            except proving.Unprovable as refused:
                click.echo(f"governor: {escaped(str(refused))}", err=True)
                raise click.exceptions.Exit(refused.result.exit_code) from None


def _trusted(trust: str | None) -> VerifierKey | None:
    return audit_log.trusted_key(trust) if trust else None


def _hand_out(text: str, as_told: dict[str, Any], output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        with usage_errors():
            output.write_text(text)
        as_told |= {"file": str(output)}
    if as_json:
        print_json(as_told)
    elif output is None:
        sys.stdout.write(text)


def _qualified(result: Result) -> int:
    if result is Result.NOT_PINNED:
        click.echo(f"governor: {result}: {_UNPINNED}", err=True)
    return result.exit_code


def _check_receipt(file: Path, trust: str | None, *, as_json: bool) -> int:
    proved, result = _checked(proving.check_receipt, file, trust, as_json=as_json)
    if as_json:
        print_json(_proved_json(result, proved) | {"reason": None, "line": proved.raw.decode()})
        return result.exit_code
    said = console()
    said.print(f"{result}: {proved.lane}/{proved.seq} is in the log", style=_STYLES[result])
    said.print(f"  {escaped(proved.kind)} of {escaped(proved.ts)}, signed by {proved.kid}")
    said.print(f"  under {_head_text(proved.head)}")
    said.print(f"  {escaped(proved.raw.decode())}")
    return _qualified(result)


def _check_growth(file: Path, trust: str | None, *, as_json: bool) -> int:
    grown, result = _checked(proving.check_consistency, file, trust, as_json=as_json)
    if as_json:
        print_json(_grown_json(result, grown) | {"reason": None})
        return result.exit_code
    said = console()
    said.print(f"{result}: lane {grown.lane} grew from {grown.old.size:,} to {grown.new.size:,} entries, and none of"
               " the earlier ones changed", style=_STYLES[result])
    said.print(f"  from {_head_text(grown.old)}")
    said.print(f"  to   {_head_text(grown.new)}")
    return _qualified(result)


def _checked[Known](check: Callable[[bytes, VerifierKey | None], tuple[Known, Result]], file: Path, trust: str | None,
                    *, as_json: bool) -> tuple[Known, Result]:
    """What the file proves. Where it proves nothing, that is told, and ends the verb."""
    with usage_errors():
        with audit_log.open_regular(file) as opened:
            data = opened.read(MAX_TEXT_BYTES + 1)
        try:
            return check(data, _trusted(trust))
        except ProofError as error:
            result = Result.TAMPERED
            if as_json:
                print_json({"result": result.value, "reason": str(error)})
            else:
                console().print(f"{result}: {escaped(str(error))}", style=_STYLES[result])
            raise click.exceptions.Exit(result.exit_code) from None


def _head_text(head: Checkpoint) -> str:
    return f"the checkpoint of {escaped(head.origin)} at {head.size:,} entries, root {head.root.hex()}"


def _proved_json(result: Result, proved: Proved) -> dict[str, Any]:
    return {"result": result.value, "entry": f"{proved.lane}/{proved.seq}", "type": proved.kind, "ts": proved.ts,
            "kid": proved.kid, **_head_json(proved.head)}


def _grown_json(result: Result, grown: Grown) -> dict[str, Any]:
    return {"result": result.value, "lane": grown.lane, "from": _head_json(grown.old), "to": _head_json(grown.new)}


def _head_json(head: Checkpoint) -> dict[str, Any]:
    return {"origin": head.origin, "size": head.size, "root": head.root.hex()}


def _write_into(folder: Path | None, proved: Proved, text: str) -> Path | None:
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{proved.lane}-{proved.seq}.tlog-proof"
    file.write_text(text)
    return file


def _draw_json(result: Result, seed: str, count: int, draw: proving.Draw, files: list[Path | None]) -> dict[str, Any]:
    entries = [
        _proved_json(result, proved) | {"receipt": write_receipt(made), "file": file and str(file)}
        for (made, proved), file in zip(draw.receipts, files, strict=True)]
    heads = [{"lane": head.lane, "size": head.size, "root": head.root.hex()} for head in draw.heads]
    return {"result": result.value, "seed": seed, "n": count, "heads": heads, "without_checkpoint": [*draw.uncovered],
            "entries": entries}


def _tell_draw(result: Result, draw: proving.Draw, files: list[Path | None]) -> None:
    said, total = console(), sum(head.size for head in draw.heads)
    said.print(f"{result}: {len(draw.receipts):,} of {total:,} entries drawn, each with a receipt that holds",
               style=_STYLES[result])
    for head in draw.heads:
        said.print(f"  lane {escaped(head.lane)}: {head.size:,} entries, root {head.root.hex()}")
    for lane in draw.uncovered:
        said.print(f"  lane {escaped(lane)}: no checkpoint yet, so nothing was drawn from it", style="yellow")
    table = Table("entry", "type", "time", "receipt", box=None, pad_edge=False)
    for (_, proved), file in zip(draw.receipts, files, strict=True):
        name = f"{proved.lane}/{proved.seq}"
        table.add_row(name, escaped(proved.kind), escaped(proved.ts), file.name if file else "-")
    said.print(table)
    if None in files:
        said.print("  --output DIR writes the receipts, --json prints them")
    if result is Result.NOT_PINNED:
        said.print(f"  {_UNPINNED}", style="yellow")
