"""`governor policy explain`: what would happen to a request, who can reach what, and what a policy says, in words."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import click

from addons.home import Paths, home_folder
from addons.policy_files import load_policy, shipped_policy
from addons.verbs.explanation import (
    accesses_json,
    explained,
    explained_json,
    prose_json,
    tell_accesses,
    tell_explained,
    tell_prose,
)
from addons.verbs.findings import tell_findings
from addons.verbs.output import console, print_json
from kernel import times
from kernel.access import accesses
from kernel.ahead.outlook import as_if
from kernel.compiler import Compiled
from kernel.errors import NonCanonical, PatternError, PolicyError
from kernel.facts import Address, Host
from kernel.fields import Headers
from kernel.normal import host as canonical_host
from kernel.policy import Policy
from kernel.vocabulary import WELL_KNOWN_METHODS

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

ahead_option = click.option("--ahead", is_flag=True, help="Also read what a later version enforces: ask, mcp, git, ...")


@click.command()
@click.option("--policy", "asked_files", type=_FILE, metavar="FILE", multiple=True,
              help="The policy that is asked; once for each of its tiers. Without it: the home's policy.yaml, else the "
                   "one that Governor ships.")
@click.option("--home", metavar="DIR", help="The home whose policy is asked. Before $GOVERNOR_HOME.")
@click.option("--agent", metavar="A", help="Who asks; local, where a request is asked without it.")
@click.option("--to", "host", metavar="HOST", help="Who can reach this host, and how?")
@click.option("--address", metavar="IP", help="What the host resolves to. Without it: some address of the internet.")
@click.option("--at", metavar="TIME", help="When it is asked, as 2026-12-31T18:00:00Z. Without it: now.")
@click.option("--header", "headers", multiple=True, metavar="K:V",
              help="A header of the request, such as content-type:application/json. Once for each.")
@click.option("--body", metavar="STRING|@FILE", help="The body of the request, and what its content type says it is.")
@ahead_option
@click.option("--holds", multiple=True, metavar="RULE",
              help="With --ahead: the request fulfils what nothing can judge yet of this rule. May be repeated.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
@click.argument("asked", nargs=-1, metavar="[METHOD URL | FILE]")
@click.pass_context
def explain(
    ctx: click.Context, asked_files: tuple[Path, ...], home: str | None, agent: str | None, host: str | None,
    address: str | None, at: str | None, headers: tuple[str, ...], body: str | None, ahead: bool,
    holds: tuple[str, ...], wants_json: bool, asked: tuple[str, ...],
) -> None:
    """Say what would happen to a request and why, who can reach what, or what a whole policy says.

    \b
    governor policy explain --agent coder-1 POST https://api.example.org/v1/items
    governor policy explain GET https://billing.corp.example/ --address 10.1.2.3
    governor policy explain POST https://pay.example.org/v1/charges \\
        --header content-type:application/json --body '{"amount": 5}'
    governor policy explain --agent coder-1          everything that it can reach
    governor policy explain --to api.example.org     who can reach it
    governor policy explain policy.yaml              the whole policy in sentences
    governor policy explain --policy platform.yaml --policy team.yaml GET https://example.org/

    The two tables come from the rules as they stand. A rule under "but not" takes a part of a row away; a row that a
    rule certainly takes away as a whole is left out.

    Exit status: 0 granted, something can be reached, or told; 1 refused, nothing can be reached, or a policy that does
    not load; 2 a FILE, METHOD, URL, HOST or IP that cannot be meant.
    """
    carried = (address, at, headers, body)
    match asked:
        case (method, url) if host is None:
            request = (agent or "local", _method(method), _url(url), _address(address), _headers(headers), _body(body),
                       _moment(at))
            supposed = as_if(_asked_policy(asked_files, home, ahead=ahead).policy, holds)
            granted = _tell_request(supposed, request, wants_json=wants_json)
        case (one,) if (host, agent, asked_files, *carried) == (None, None, (), None, None, (), None):
            granted = _tell_policy(one, ahead=ahead, wants_json=wants_json)
        case () if (host or agent) and carried == (None, None, (), None):
            granted = _tell_reach(
                _asked_policy(asked_files, home, ahead=ahead), agent, _host(host), wants_json=wants_json)
        case _:
            raise click.UsageError("Say METHOD URL, --agent A, --to HOST, or one FILE.")
    ctx.exit(0 if granted else 1)


def _asked_policy(files: tuple[Path, ...], home: str | None, *, ahead: bool) -> Compiled:
    own = Paths(home_folder(home)).policy
    return load_policy(files or (own if own.exists() else shipped_policy("default"),), ahead=ahead)


def _method(text: str) -> str:
    if not _METHOD.fullmatch(text):
        raise click.BadParameter(f"{text} is not a method", param_hint="METHOD")
    return text.upper()


def _url(text: str) -> str:
    if "://" not in text:
        raise click.BadParameter(f"{text} is no URL; write https://{text}", param_hint="URL")
    return text


def _tell_request(
    asked: Policy, request: tuple[str, str, str, Address | None, Headers, bytes, int], *, wants_json: bool
) -> bool:
    said = explained(asked, *request)
    if wants_json:
        print_json(explained_json(said))
    else:
        tell_explained(console(), said)
    return said.judgement.verdict.lets_through


def _tell_policy(file: str, *, ahead: bool, wants_json: bool) -> bool:
    path = Path(file)
    if not path.is_file():
        raise click.BadParameter(_instead_of(file), param_hint="FILE")
    try:
        told = load_policy([path], ahead=ahead).policy
    except PolicyError as refused:
        tell_findings(console(stderr=True), refused.findings)
        return False
    if wants_json:
        print_json(prose_json(told))
    else:
        tell_prose(console(), told)
    return True


def _instead_of(file: str) -> str:
    """What to write where one word is no file."""
    if "://" in file:
        return f"a URL needs its method before it: GET {file}"
    if file.upper() in WELL_KNOWN_METHODS:
        return f"a method needs its URL behind it: {file} https://example.org/"
    return f"{file} is a folder; name one file in it" if Path(file).is_dir() else f"there is no file {file}"


def _tell_reach(compiled: Compiled, agent: str | None, host: Host | None, *, wants_json: bool) -> bool:
    asked = compiled.policy
    found = accesses(asked, agent, host)
    if wants_json:
        print_json({"agent": agent, "to": host and host.name, "reach": accesses_json(found, asked)})
    else:
        whom = f"What {agent} can reach" if agent else "Who can reach"
        where = "" if host is None else f"{' at' if agent else ''} {host.name}"
        tell_accesses(console(), found, asked, f"{whom}{where}", agents=agent is None)
    return bool(found)


def _host(text: str | None) -> Host | None:
    if text is None:
        return None
    try:
        return canonical_host(text)
    except NonCanonical as refused:
        name = urlsplit(text).hostname if "://" in text else None
        problem = f"{text} is a URL; write --to {name}" if name else f"{text}: {refused.problem}"
        raise click.BadParameter(problem, param_hint="--to") from None


def _address(text: str | None) -> Address | None:
    try:
        return None if text is None else ip_address(text)
    except ValueError:
        raise click.BadParameter(f"{text} is not an address", param_hint="--address") from None


def _moment(text: str | None) -> int:
    try:
        return int(time.time()) if text is None else times.moment(text)
    except PatternError as refused:
        raise click.BadParameter(str(refused), param_hint="--at") from None


def _headers(texts: Iterable[str]) -> Headers:
    split = [text.partition(":") for text in texts]
    for name, colon, _ in split:
        if not name.strip() or not colon:
            raise click.BadParameter(f"{name} is no NAME:VALUE", param_hint="--header")
    return tuple((name.strip().lower().encode(errors="surrogateescape"), value.strip().encode(errors="surrogateescape"))
                 for name, _, value in split)


def _body(text: str | None) -> bytes:
    if text is None or not text.startswith("@"):
        return (text or "").encode(errors="surrogateescape")
    file = Path(text[1:])
    if not file.is_file():
        raise click.BadParameter(f"there is no file {file}", param_hint="--body")
    return file.read_bytes()
