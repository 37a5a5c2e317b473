"""`governor audit anchor selftest` and `iam`: whether a bucket can hold heads, and what an identity needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from addons.audit_text import escaped
from addons.verbs.output import console, print_json, progress

if TYPE_CHECKING:
    from addons.anchors.bucket import Location
    from addons.anchors.lock_contract import Finding

_STYLES = {"passed": "green", "failed": "bold red", "lacking": "yellow", "untold": "dim"}

_s3 = click.option("--s3", "url", metavar="s3://BUCKET/PREFIX", required=True, help="Where the heads are to be kept.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def add_s3_verbs(group: click.Group) -> None:
    """Put the verbs of S3 under `audit anchor`."""
    group.add_command(selftest)
    group.add_command(iam)


@click.command(short_help="Ask a bucket, call by call, whether its Object Lock holds.")
@_s3
@click.option("--endpoint", metavar="URL", help="Where the S3 server is, if it is not Amazon's.")
@click.option("--region", metavar="NAME", help="The bucket's region; else as the AWS configuration says.")
@_json
def selftest(url: str, endpoint: str | None, region: str | None, as_json: bool) -> int:
    """Ask a bucket, call by call, whether its Object Lock holds, and print what it answered.

    A canary is written and locked for five minutes; then everything is tried that must be refused: its delete, with
    the bypass flag and in batches, a shorter lock, a weaker one, none, a damaged body, a wrong secret. Credentials are
    those of the AWS configuration: the environment, ~/.aws or a role. Run it with the identity that Governor will use,
    and once with the mightiest one that you have: a refusal says most where the identity may do everything else.

    \b
    governor audit anchor selftest --s3 s3://example-heads/governor
    governor audit anchor selftest --s3 s3://example-heads/governor --endpoint https://s3.example.org --json

    It leaves some objects of a hundred bytes below PREFIX/governor-selftest/; where the bucket has a default lock, one
    of them for as long as that says.

    Exit status: 0 all holds, 1 something does not that a proof needs, 3 something is lacking that it does not need,
    such as If-None-Match, 2 wrong usage.
    """
    from addons.anchors import lock_contract
    from addons.anchors.bucket import Bucket

    location = _location(url, region, endpoint)
    found = []
    with progress("asking the bucket", lock_contract.size()) as step:
        for finding in lock_contract.examine(Bucket(location), datetime.now(UTC)):
            found.append(finding)
            step()
    result, status = _result(found)
    if as_json:
        print_json({"target": location.url, "result": result, "checks": [_row(finding) for finding in found]})
    else:
        _tell(location.url, result, found)
    return status


@click.command(short_help="Print the least that an AWS identity must be allowed.")
@_s3
@click.option("--reader", is_flag=True, help="The policy for whoever verifies, instead of the one for publishing.")
def iam(url: str, reader: bool) -> int:
    """Print the least that an AWS identity must be allowed, as an IAM policy.

    The one for publishing writes, locks and looks, and denies every way to take something back. s3:PutObjectRetention
    is part of a put with a lock; in COMPLIANCE mode it can make a lock longer and nothing else.

    \b
    governor audit anchor iam --s3 s3://example-heads/governor >publish.json
    aws iam put-user-policy --user-name governor --policy-name governor-anchor --policy-document file://publish.json

    Exit status: 0 printed, 2 wrong usage.
    """
    from addons.anchors import bucket_policy

    location = _location(url)
    print_json(bucket_policy.reading(location) if reader else bucket_policy.publishing(location))
    return 0


def _location(url: str, region: str | None = None, endpoint: str | None = None) -> Location:
    from addons.anchors.bucket import Location

    try:
        return Location.parse(url, region, endpoint)
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None


def _result(found: list[Finding]) -> tuple[str, int]:
    failed = [finding for finding in found if finding.outcome == "failed"]
    if any(finding.needed for finding in failed):
        return "failed", 1
    return ("lacking", 3) if failed else ("passed", 0)


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name, "expected": finding.expected, "seen": finding.seen, "outcome": str(finding.outcome),
        "needed": finding.needed,
    }  # fmt: skip


def _word(finding: Finding) -> str:
    return "lacking" if finding.outcome == "failed" and not finding.needed else str(finding.outcome)


def _tell(target: str, result: str, found: list[Finding]) -> None:
    said = console()
    rows = [("", "asked", "expected", "seen")]
    rows += [(_word(finding), finding.name, finding.expected, escaped(finding.seen)) for finding in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        said.print("  ".join((*cells, row[3])).rstrip(), style=_STYLES.get(row[0]))
    said.print(f"{_headline(result)}: {target}", style=_STYLES[result])


def _headline(result: str) -> str:
    match result:
        case "passed":
            return "the lock holds"
        case "lacking":
            return "the lock holds; what is lacking is not needed"
        case _:
            return "the lock does not hold: heads kept there prove nothing"
