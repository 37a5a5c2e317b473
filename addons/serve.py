"""`governor serve`: mitmdump with Governor inside from before its first port, and an exit status that tells."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, NoReturn

from mitmproxy import hooks
from mitmproxy.addonmanager import Loader
from mitmproxy.options import Options
from mitmproxy.tools import cmdline
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.main import run

from addons.enforcer import Enforcer
from addons.sandbox import post as run_post
from addons.sandbox.run_host import RunHost
from addons.workers.post import Post
from addons.workers.supervisor import ASKED_TO_STOP, FAULT, START_REFUSED, USAGE, Supervisor
from addons.workers.worker import Worker

# After a failed log: long enough for a probe to see that it is not ready, and for clients to read the refusal.
REFUSING_SECONDS = 30.0


class Stage(Enum):
    READING_OPTIONS = auto()
    STARTING = auto()
    SERVING = auto()


class GovernedMaster(DumpMaster):
    """mitmdump's master with the enforcer among its own addons: alone, as a worker, or for one run of a command."""

    status = ASKED_TO_STOP

    def __init__(self, opts: Options, started_by: Worker | RunHost | None = None) -> None:
        super().__init__(opts)
        self._started_by = started_by
        self.enforcer = Enforcer() if started_by is None else Enforcer(started_by.host)
        self.enforcer.seconds_after_stop = REFUSING_SECONDS
        self.stage = Stage.READING_OPTIONS

    async def run(self) -> None:
        """Serve until asked to stop. The enforcer ends a start that it refuses before any port is open."""
        self.stage = Stage.STARTING
        if self._started_by is not None:
            await self._started_by.begin(self.options)
        self._admit(self.enforcer)
        if self._started_by is not None:
            await self._started_by.opened()
        await super().run()
        if self.stage is Stage.STARTING:
            # Asked to stop while it opened its ports, mitmproxy returns without a word to its addons.
            self.enforcer.done()

    async def running(self) -> None:
        self.stage = Stage.SERVING
        await super().running()

    def _admit(self, enforcer: Enforcer) -> None:
        """Add the enforcer where `-s` would, and in the steps `-s` takes: load, then configure with every option."""
        self.addons.add(enforcer)
        chain = self.addons.chain
        chain.insert(chain.index(self.addons.get("scriptloader")), chain.pop())
        self.addons.invoke_addon_sync(enforcer, hooks.ConfigureHook(set(self.options.keys())))


class SupervisingMaster(DumpMaster):
    """mitmdump's master where the options are read and checked; what serves are processes of their own."""

    status = ASKED_TO_STOP

    def __init__(self, opts: Options, workers: int, arguments: Sequence[str]) -> None:
        super().__init__(opts)
        self._supervisor = Supervisor(opts, workers, arguments)
        self.stage = Stage.READING_OPTIONS

    async def run(self) -> None:
        """Supervise until asked to stop."""
        self.stage = Stage.STARTING
        for script in self.addons.get("scriptloader").addons:
            # A script runs in the workers alone.
            script.done()
        self.status = await self._supervisor.run(Loader(self))

    def shutdown(self) -> None:
        self._supervisor.stop()


class _Ended(Exception):
    """The command line asked for nothing that is served: for help, or for what does not exist."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


def serve(arguments: Sequence[str], workers: int = 1) -> int:
    """Serve until asked to stop; the exit status of DESIGN's table."""
    if workers == 1:
        return _run(GovernedMaster, arguments)
    return _run(lambda opts: SupervisingMaster(opts, workers, arguments), arguments)


def work() -> int:
    """Serve as one of several workers, started by their supervisor with its own arguments."""
    worker = Worker(Post.taken())
    return _run(lambda opts: GovernedMaster(opts, worker), sys.argv[1:])


def serve_run() -> int:
    """Serve one run of a command, started by whoever encloses it."""
    host = RunHost(run_post.Post.taken())
    return _run(lambda opts: GovernedMaster(opts, host), sys.argv[1:])


def _run(master_of: Callable[[Options], GovernedMaster | SupervisingMaster], arguments: Sequence[str]) -> int:
    masters: list[GovernedMaster | SupervisingMaster] = []

    def master(opts: Options) -> GovernedMaster | SupervisingMaster:
        masters.append(master_of(opts))
        return masters[0]

    try:
        run(master, _parser, arguments, _refuse_filter)  # type: ignore[arg-type]
    except _Ended as ended:
        return ended.status
    except SystemExit as ended:
        return ASKED_TO_STOP if ended.code in (None, 0) else _ENDED_IN[masters[0].stage]
    except Exception as fault:  # noqa: BLE001
        print(f"governor: stopped on a fault: {type(fault).__name__}: {fault}", file=sys.stderr)
        return FAULT
    return masters[0].status


# What an exit with an error means in each stage. Before the start, mitmproxy has only options to complain of.
_ENDED_IN = {Stage.READING_OPTIONS: USAGE, Stage.STARTING: START_REFUSED, Stage.SERVING: FAULT}


def _parser(opts: Options) -> ArgumentParser:
    """mitmdump's parser. Its exits go past mitmproxy, which would end help and wrong usage alike with 1."""
    parser: ArgumentParser = cmdline.mitmdump(opts)
    parser.prog = "governor serve"

    def leave(status: int = 0, message: str | None = None) -> NoReturn:
        sys.stderr.write(message or "")
        raise _Ended(status)

    parser.exit = leave  # type: ignore[method-assign]
    return parser


def _refuse_filter(parsed: Namespace) -> dict[str, Any]:
    if parsed.filter_args:
        print(f"governor serve: {' '.join(parsed.filter_args)}: a filter has no effect here", file=sys.stderr)
        raise _Ended(USAGE)
    return {}
