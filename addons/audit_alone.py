"""The command line of governor-audit.pyz: verify and replay, with nothing of Governor but what reads its logs."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from addons import replay_text, replaying, report_text
from addons.audit_log import trusted_key
from addons.audit_text import escaped, json_text
from addons.audit_view import Filter
from addons.bundle_check import bundle_signature
from addons.bundle_reading import opened
from addons.errors import GovernorError
from addons.verifying import verify_log
from kernel.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERNAL_FAULT = 70
USAGE_ERROR = 2
_EPILOG = """\
exit status of verify: 0 verified, 1 tampered, 2 wrong usage, 3 nothing says whose log this is (--trust does),
4 incomplete, 5 rolled back; of replay: 0 equal, 1 divergent, 2 wrong usage, 3 some decisions cannot be made again,
4 entries are missing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status that `governor audit` has for the same answer."""
    asked = _parser().parse_args(arguments)
    try:
        status: int = asked.run(asked)
    except (GovernorError, OSError) as error:
        print(f"governor-audit: {escaped(str(error))}", file=sys.stderr)
        return USAGE_ERROR
    except Exception as fault:  # noqa: BLE001
        place = traceback.extract_tb(fault.__traceback__)[-1]
        said = f"{type(fault).__name__}: {fault} ({place.filename}:{place.lineno})"
        print(f"governor-audit: internal fault: {escaped(said)}", file=sys.stderr)
        return INTERNAL_FAULT
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="governor-audit", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG,
        description="Verify and replay the signed log of Governor, without Governor.")
    parser.add_argument("--version", action="version", version=f"governor-audit {VERSION}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verify = _verb(verbs, "verify", _verify, "say whether the log is whole and as it was written")
    verify.add_argument("--trust", metavar="KEY", help="the root's verifier key, a file holding it, or a trust.json")
    verify.add_argument("--every-signature", action="store_true", help="check each entry's own signature, too")
    replay = _verb(verbs, "replay", _replay, "make every decision again, and say whether it comes out as it was")
    for verb in (verify, replay):
        verb.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many parts at once")
    return parser


def _verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: object,
          summary: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    verb.add_argument("where", metavar="WHERE", type=Path, help="a bundle, its folder, a home or its audit folder")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run)
    return verb


def _verify(asked: argparse.Namespace) -> int:
    trusted = trusted_key(asked.trust) if asked.trust else None
    with opened(asked.where) as log:
        report = verify_log(log, trusted, every_signature=asked.every_signature, jobs=max(1, asked.jobs))
        signature = bundle_signature(log, trusted)
    if asked.json:
        print(json_text(report_text.as_json(report, log.bundle, signature)))
    else:
        _print_lines(report_text.headline(report), report_text.details(report, log.bundle, signature))
    return report.result.exit_code


def _replay(asked: argparse.Namespace) -> int:
    started = time.perf_counter()
    with opened(asked.where) as log:
        reading = replaying.replayed(log, Filter(), max(1, asked.jobs))
    if asked.json:
        print(json_text(replay_text.replay_json(reading)))
    else:
        lines = (*replay_text.problems(reading), *replay_text.reservations(reading), *replay_text.basis(reading))
        _print_lines(replay_text.headline(reading, time.perf_counter() - started), lines)
    return replay_text.exit_code(reading)


def _print_lines(headline: str, details: Sequence[str]) -> None:
    print("\n".join((headline, *(f"  {line}" for line in details))))
