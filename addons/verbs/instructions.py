"""`governor agents instructions`: what an agent's own instructions should say of Governor."""

from __future__ import annotations

import click

from addons.verbs.acting import json_option
from addons.verbs.output import print_json
from kernel.facts import OWN_NAME

_TEXT = f"""\
## Network

Every request from here is judged by Governor, the network policy, and recorded (`GOVERNOR=1`; you: `$GOVERNOR_AGENT`).
- A 403 with a header `x-governor-code`, or a reason "Forbidden by Governor", comes from Governor and not from the site.
  It is deliberate: another method, mirror, address, proxy setting or tool is refused and counted, too. Do not retry.
- A name that does not resolve, or a connection that is refused at once, means the same: nothing allows it.
- Read the refusal: `detail` says what and why, `next_step` what to do. Tell your user and quote its `entry`.
- Ask before you try: `curl "http://{OWN_NAME}/may?method=GET&url=https://example.org/"`; what you may do and what is
  left of your budgets: `curl http://{OWN_NAME}/me`; your last refusals: `curl http://{OWN_NAME}/refusals`.
- A 429 names in `retry-after` when to go on. A 407 means that you are not known: that is for your user to settle.
- Keys and logins are fine when Governor refuses: do not sign in again, and do not look for other credentials.
- Certificates: clients here trust Governor's own CA. Never switch verification off; say which client complains.
- Do not try to reach the network past Governor, and do not change what is set for it (variables, certificates, DNS).
"""


@click.command()
@click.option("--home", metavar="DIR", help="Taken for uniformity.", hidden=True)
@json_option
def instructions(home: str | None, as_json: bool) -> None:  # noqa: ARG001
    """Print what to paste into an agent's AGENTS.md or CLAUDE.md, so that a refusal is read as one.

    governor agents instructions >> AGENTS.md
    """
    if as_json:
        print_json({"instructions": _TEXT})
    else:
        click.echo(_TEXT, nl=False)
