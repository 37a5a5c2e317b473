"""`governor audit accept-loss` and `key-compromised`: what an operator does about a log that does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from addons.audit_text import escaped
from addons.errors import GovernorError
from addons.home import MAIN, home_folder
from addons.report_text import loss_words
from addons.verbs.acting import REFUSED, end, home_option, json_option, operator_option, reason_option, words
from addons.verbs.output import console, print_json
from addons.verbs.root_key import asked_for, root_key_option, root_passphrase_option
from kernel.transition import CLI

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from kernel.loss import Succession


@click.command(name="accept-loss")
@click.argument("reason", callback=words)
@operator_option
@click.option("--lane", default=MAIN, show_default=True, metavar="LANE",
              help=f"The lane that was lost: {MAIN}, w0 and so on with workers, or {CLI}, which verbs write.")
@root_key_option
@root_passphrase_option
@home_option
@json_option
def accept_loss(reason: str, operator: str | None, lane: str, root_key: str | None, root_passphrase: str | None,
                home: str | None, as_json: bool) -> None:
    """Give up a lane that a start refuses (TAMPERED, ROLLED_BACK, HOME_INCOMPLETE), and go on in another.

    A backup is the better way back, where there is one. This is for where there is none: the lost lane is left as it
    is, main-1 goes on in the place of main, and its first entry says what was lost, why and by whom. The lost lane does
    not become whole: governor audit verify goes on saying what is wrong with it.

    \b
    Halted and quarantined agents stay so. What the lost part has drawn of budgets, nobody knows:
    each budget counts as used up until its window ends. One of a session ends with a new token
    (governor agents rotate); one that all agents share for a session is used up for good.

    The root key certifies the lane that goes on. It is asked for where it is not in the home and governor init --lanes
    has not certified that lane ahead.

    Exit status: 0 accepted, 1 refused: a start takes the lane as it is, or a Governor runs on the home, 2 wrong usage.
    """
    root = asked_for(root_key, root_passphrase)
    succession = accepted(home_folder(home), lane, reason, operator, root, as_json=as_json)
    loss = succession.loss
    if as_json:
        print_json({"successor": succession.successor, **loss.fields()})
    else:
        console().print(loss_words(succession))
        console().print("every budget counts as used up until its window ends; governor audit verify tells of the loss")


@click.command(name="key-compromised")
@click.argument("kid", metavar="KID")
@click.option("--from", "first", required=True, metavar="SEQ", type=click.IntRange(min=1),
              help="The number of the first entry that is not to be trusted any more.")
@reason_option
@operator_option
@click.option("--lane", default=MAIN, show_default=True, metavar="LANE", help="The lane whose key it is.")
@root_key_option
@root_passphrase_option
@home_option
@json_option
def key_compromised(kid: str, first: int, reason: str, operator: str | None, lane: str, root_key: str | None,
                    root_passphrase: str | None, home: str | None, as_json: bool) -> None:
    """Say that the key with which a lane is written is in other hands, and go on in another lane.

    The root key signs that the lane counts up to SEQ and no further: from there on its entries are listed as unattested
    by governor audit verify. A halt or a quarantine among them counts all the same, a release does not, and each budget
    counts as used up until its window ends. KID is the id that governor audit verify lists.

    Exit status: 0 done, 1 refused: no such key or entry, or a Governor runs on the home, 2 wrong usage.
    """
    from addons.accepted_loss import distrust
    from addons.acts_alone import known_home

    folder = home_folder(home)
    root = asked_for(root_key, root_passphrase)
    try:
        known_home(folder)
        succession = distrust(folder, lane, kid, first, reason, operator, root)
    except GovernorError as problem:
        end(escaped(str(problem)), REFUSED, as_json=as_json)
    if as_json:
        print_json({"successor": succession.successor, **succession.loss.fields()})
    else:
        console().print(loss_words(succession))


def accepted(folder: Path, lane: str, reason: str, operator: str | None, root: Ed25519PrivateKey | None = None, *,
             as_json: bool) -> Succession:
    """Accept the loss of a lane; ends the verb where it is refused."""
    from addons.accepted_loss import accept
    from addons.acts_alone import known_home

    try:
        known_home(folder)
        return accept(folder, lane, reason, operator, root)
    except GovernorError as problem:
        end(escaped(str(problem)), REFUSED, as_json=as_json)
