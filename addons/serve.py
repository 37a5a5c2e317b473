"""`governor serve`: mitmdump with Governor inside, fast dispatch, and an exit status that tells."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mitmproxy import exceptions, hooks
from mitmproxy.options import Options
from mitmproxy.tools import cmdline
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.main import run

from addons.dispatch import speed_up
from addons.enforcer import Enforcer
from addons.errors import StartRefused

ASKED_TO_STOP, START_REFUSED, USAGE, FAULT = 0, 1, 2, 3
# After a failed log: long enough for a probe to see that it is not ready, and for clients to read the refusal.
REFUSING_SECONDS = 30.0


class GovernedMaster(DumpMaster):
    """mitmdump's master with the enforcer among its own addons and the fast dispatch."""

    def __init__(self, opts: Options) -> None:
        super().__init__(opts)
        speed_up(self.addons)
        self.enforcer = Enforcer()
        self.enforcer.seconds_after_stop = REFUSING_SECONDS
        self.served = False

    async def run(self) -> None:
        """Serve until asked to stop. Raises `StartRefused` or SystemExit before any port is open."""
        self._admit(self.enforcer)
        await super().run()

    async def running(self) -> None:
        self.served = True
        await super().running()

    def _admit(self, enforcer: Enforcer) -> None:
        """Add the enforcer where `-s` would, and in the steps `-s` takes: load, then configure with every option."""
        self.addons.add(enforcer)
        chain = self.addons.chain
        chain.insert(chain.index(self.addons.get("scriptloader")), chain.pop())
        self.addons.invoke_addon_sync(enforcer, hooks.ConfigureHook(set(self.options.keys())))


def serve(arguments: Sequence[str]) -> int:
    """Serve until asked to stop; the exit status of DESIGN's table."""
    status = _usage(arguments)
    if status is not None:
        return status
    masters: list[GovernedMaster] = []

    def master(opts: Options) -> GovernedMaster:
        masters.append(GovernedMaster(opts))
        return masters[0]

    try:
        run(master, cmdline.mitmdump, arguments)  # type: ignore[arg-type]
    except StartRefused as refused:
        print(refused, file=sys.stderr)
        return START_REFUSED
    except SystemExit as ended:
        if ended.code in (None, 0):
            return ASKED_TO_STOP
        return FAULT if masters and masters[0].served else START_REFUSED
    except Exception as fault:  # noqa: BLE001
        print(f"governor: stopped on a fault: {type(fault).__name__}: {fault}", file=sys.stderr)
        return FAULT
    return ASKED_TO_STOP


def _usage(arguments: Sequence[str]) -> int | None:
    """The status of a command line that serves nothing. mitmproxy itself ends help and wrong usage alike."""
    opts = Options()
    try:
        parsed = cmdline.mitmdump(opts).parse_args(arguments)
        opts.set(*parsed.setoptions, defer=True)
    except SystemExit as ended:
        return USAGE if ended.code else ASKED_TO_STOP
    except exceptions.OptionsError as problem:
        print(f"governor serve: {problem}", file=sys.stderr)
        return USAGE
    if parsed.filter_args:
        print(f"governor serve: {' '.join(parsed.filter_args)}: a filter has no effect here", file=sys.stderr)
        return USAGE
    return None
