"""`governor ca`: the CA shown, trusted by clients and by this machine, and replaced."""

from __future__ import annotations

import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from addons import acts_alone
from addons.errors import GovernorError
from addons.home import home_folder
from addons.verbs.acting import REFUSED, home_option, json_option, operator_option, words
from addons.verbs.output import console, print_json
from kernel.errors import PatternError
from kernel.quantity import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from addons.authority import Standing
    from addons.client_trust.installing import Store

ACT = "ca rotate"
SHELLS = ("sh", "fish", "powershell")


@click.group()
def ca() -> None:
    """The CA under which Governor answers HTTPS: show it, have it trusted, replace it.

    Clients inside governor run trust the CA of their run without any of this. Where agents run beside Governor without
    a sandbox, env gives the variables by which they trust it, and trust puts it into this machine's own stores.
    """


def _overlap(_: click.Context, parameter: click.Parameter, value: str) -> timedelta:
    try:
        return timedelta(seconds=duration(value))
    except PatternError as problem:
        raise click.BadParameter(str(problem), param=parameter) from None


@ca.command()
@home_option
@json_option
def show(home: str | None, as_json: bool) -> None:
    """Show the CA: its fingerprint, how long it lives, and where on this machine it is trusted.

    During a rotation there are several: the one that signs, the successor that will, and the ones that did, which
    are trusted until they end. The file at `path` holds all of them, the one that signs first.

    Exit status: 0 shown, 1 there is none or it has ended, 2 wrong usage.
    """
    from addons import authority
    from addons.client_trust.installing import trusted_by

    paths, now = acts_alone.known_home(home_folder(home)), datetime.now(UTC)
    if not (paths.ca / authority.KEY_FILE).exists():
        text = f"{paths.folder} has no CA yet: governor init, or the first start of governor serve, makes it"
        raise GovernorError(f"{text}; each governor run has one of its own, which goes with it")
    standing = authority.standing(paths.ca, now)
    told = [_told(role, each, now) | {"trusted_by": trusted_by(_der(each), Path.home())}
            for role, each in _roles(standing)]
    signs_from = standing.signs_from.isoformat() if standing.signs_from else None
    if as_json:
        print_json({"path": str(paths.ca / authority.CERTIFICATE_FILE), "signs_from": signs_from, "certificates": told})
    else:
        _show(str(paths.ca / authority.CERTIFICATE_FILE), told, signs_from)
    if standing.signing.not_valid_after_utc <= now:
        raise click.exceptions.Exit(REFUSED)


def _roles(standing: Standing) -> list[tuple[str, x509.Certificate]]:
    return [("signing", standing.signing), *([("successor", standing.successor)] if standing.successor else []),
            *(("previous", each) for each in standing.previous)]


def _told(role: str, certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    return {
        "role": role, "subject": certificate.subject.rfc4514_string(),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - now).days,
    }


def _show(path: str, told: list[dict[str, Any]], signs_from: str | None) -> None:
    out = console()
    for each in told:
        later = f" from {signs_from} on" if each["role"] == "successor" else ""
        out.print(f"{each['role']}{later}: {each['subject']}", style="bold")
        out.print(f"  sha256      {each['sha256']}")
        out.print(f"  valid       {each['not_before']} to {each['not_after']} ({each['days_left']} days left)")
        out.print(f"  trusted by  {', '.join(each['trusted_by']) or 'no store of this machine or of yours'}")
    out.print(f"file          {path}")


@ca.command()
@click.option("--shell", is_flag=False, flag_value="sh", type=click.Choice(SHELLS), metavar="[SHELL]",
              help="For eval: sh (bash, zsh), fish or powershell.  [default: sh]")
@click.option("--docker", is_flag=True, help="A file for docker run --env-file.")
@click.option("--systemd", is_flag=True, help="A drop-in for a systemd unit.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Where the files go that the variables name.  [default: ca/trust in the home]")
@home_option
@json_option
def env(shell: str | None, docker: bool, systemd: bool, output: Path | None, home: str | None, as_json: bool) -> None:
    """Print the variables by which clients trust the CA: curl, git, Python, Node, npm, pip, cargo, Java, PHP and more.

    What you trust already is trusted still: your own bundles and the files that your configuration names are merged
    into what the variables name. The proxy is set apart from this, with HTTPS_PROXY.

    \b
    eval "$(governor ca env --shell)"
    governor ca env --shell fish | source
    governor ca env --docker > ca.env; docker run --env-file ca.env --volume DIR:DIR:ro IMAGE
    governor ca env --systemd --output /usr/local/share/governor > /etc/systemd/system/agent.service.d/ca.conf

    The home is yours alone: for commands of another user give --output DIR, a folder that they can read. The files in
    the home follow the CA when it is replaced; those in DIR when the verb is run again.

    gnutls-cli reads no variable, and browsers have stores of their own: governor ca trust.

    Exit status: 0 printed, 1 there is no home or no CA, 2 wrong usage.
    """
    from addons import authority
    from addons.client_trust.laid import lay_variables

    if sum((shell is not None, docker, systemd, as_json)) > 1:
        raise click.UsageError("one of --shell, --docker, --systemd and --json")
    paths = acts_alone.known_home(home_folder(home))
    trusted = authority.ensure(paths.ca, datetime.now(UTC)).read_bytes()
    folder = output.resolve() if output else (paths.ca / authority.TRUST_FOLDER).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    laid = lay_variables(folder, trusted, os.environ, Path.home())
    if as_json:
        print_json({"folder": str(folder), "variables": dict(laid.variables)})
    elif docker:
        click.echo(_docker(folder, laid.variables))
    elif systemd:
        click.echo(_systemd(laid.variables))
    else:
        click.echo("\n".join(_exported(shell or "sh", name, value) for name, value in laid.variables.items()))


def _exported(shell: str, name: str, value: str) -> str:
    match shell:
        case "fish":
            escaped = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"set -gx {name} '{escaped}';"
        case "powershell":
            escaped = value.replace("'", "''")
            return f"$env:{name} = '{escaped}'"
        case _:
            return f"export {name}={shlex.quote(value)}"


def _docker(folder: Path, variables: Mapping[str, str]) -> str:
    # The file is read as it stands: no quotes, one variable a line.
    said = [f"{name}={value}" for name, value in variables.items()]
    return "\n".join([f"# docker run --env-file THIS --volume {folder}:{folder}:ro IMAGE", *said])


def _systemd(variables: Mapping[str, str]) -> str:
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
               for name, value in variables.items()}
    return "\n".join(["[Service]", *(f'Environment="{name}={value}"' for name, value in escaped.items())])


@ca.command()
@click.option("--remove", is_flag=True, help="Take the CA out again.")
@click.option("--system", is_flag=True, help="Only the system's store, which needs root.")
@click.option("--user", is_flag=True, help="Only your browsers' databases: Chromium's and Firefox's.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@home_option
@json_option
def trust(remove: bool, system: bool, user: bool, dry_run: bool, home: str | None, as_json: bool) -> None:
    """Put the CA into this machine's own stores: the system's, and the NSS databases of your browsers.

    The system's serves curl, wget, git, OpenSSL, GnuTLS, Go, Ruby, PHP, and Java where the distribution keeps Java's.
    Node, npm, Python's requests and httpx, boto3 and gRPC bring their own: governor ca env.

    Whoever holds this CA's key can be any site for whoever trusts it: trust it on machines that run agents, and take
    it out with --remove when they do not any more. After governor ca rotate run it again: it adds the successor.

    Exit status: 0 done, or so already; 1 a store could not be changed, 2 wrong usage.
    """
    from addons import authority
    from addons.client_trust.installing import Kind, StoreRefused, stores

    paths = acts_alone.known_home(home_folder(home))
    authorities = [_der(each) for each in authority.standing(paths.ca, datetime.now(UTC)).trusted]
    kinds = {Kind.SYSTEM, Kind.USER} if system == user else {Kind.SYSTEM if system else Kind.USER}
    told = []
    for store in (each for each in stores(Path.home()) if each.kind in kinds):
        try:
            changed, problem = _change(store, authorities, remove=remove, dry_run=dry_run), None
        except StoreRefused as refused:
            changed, problem = False, str(refused)
        told.append({"store": store.kind, "folder": str(store.folder), "changed": changed, "error": problem,
                     "does": store.says("remove the CA from" if remove else "put the CA into")})
    if as_json:
        print_json(told)
    else:
        _say_changed(told, dry_run)
    if any(each["error"] for each in told):
        raise click.exceptions.Exit(REFUSED)


def _change(store: Store, authorities: list[bytes], *, remove: bool, dry_run: bool) -> bool:
    """Whether there was something to do."""
    missing = store.missing(authorities)
    wanted = [der for der in authorities if der not in missing] if remove else missing
    if wanted and not dry_run:
        (store.remove if remove else store.add)(wanted)
    return bool(wanted)


def _say_changed(told: list[dict[str, Any]], dry_run: bool) -> None:
    for each in told:
        done = "nothing to do" if not each["changed"] else "would be done" if dry_run else "done"
        console(stderr=bool(each["error"])).print(f"{each['does']}: {each['error'] or done}")


@ca.command()
@click.option("--overlap", default="7d", metavar="TIME", callback=_overlap, show_default=True,
              help="How long the successor is handed out before it signs: 12h, 7d.")
@click.option("--now", "at_once", is_flag=True, help="Have it sign at once: clients that know only the old CA fail.")
@click.option("--compromised", is_flag=True,
              help="Somebody else may have the key: as --now, and no certificate of before is handed out any more.")
@click.option("--reason", metavar="TEXT", callback=words, help="Why. It stands in the log.")
@operator_option
@home_option
@json_option
def rotate(overlap: timedelta, at_once: bool, compromised: bool, reason: str | None, operator: str | None,
           home: str | None, as_json: bool) -> None:
    """Replace the CA by a successor, with an overlap in which clients are given both and trust both.

    The successor is handed out at once, in the same file and in what governor ca env wrote into the home, and signs
    when the overlap is over. The old certificate is handed out until it ends, so that whatever trusts the file goes on
    working. A running Governor follows by itself; connections that stand are not touched. Have trust, and env
    with --output, done again before the overlap is over.

    Governor does the same by itself when a third of the CA's life is left. Asked again while a successor waits, this
    makes no second one, and the earlier time holds; with --compromised the one that waits is thrown away, too, since
    its key lay beside the other.

    If the key may be in other hands, first governor ca trust --remove on every machine that trusts it, then rotate
    --compromised: whoever trusts the old certificate can be shown any site by who has its key.

    Exit status: 0 done, 1 refused, 2 wrong usage.
    """
    from addons import authority

    folder, now = home_folder(home), datetime.now(UTC)
    entry = acts_alone.note(folder, ACT, reason or "", operator)
    wait = timedelta() if at_once or compromised else overlap
    standing = authority.rotate(acts_alone.known_home(folder).ca, now, wait, withdraw=compromised)
    told = [_told(role, each, now) for role, each in _roles(standing)]
    signs_from = standing.signs_from.isoformat() if standing.signs_from else None
    if as_json:
        print_json({"entry": entry, "signs_from": signs_from, "certificates": told})
        return
    newest = standing.successor or standing.signing
    when = f"signs from {signs_from} on" if signs_from else "signs now"
    console().print(f"{newest.subject.rfc4514_string()} {when} ({entry})")
    console().print("next: governor ca trust, and governor ca env --output DIR, wherever the old one is trusted")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
