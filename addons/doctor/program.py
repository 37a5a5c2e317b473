"""Python, mitmproxy, and whether the gate holds on it."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterator

from mitmproxy import version

from addons import dispatch, gate_trial
from addons.doctor.check import Check, State
from addons.hooks import Hooks

TESTED = dispatch.TESTED


def checks() -> Iterator[Check]:
    """One line where all is well."""
    versions = f"Python {platform.python_version()}, mitmproxy {version.VERSION}"
    let_through = asyncio.run(_let_through())
    if let_through:
        yield Check(
            "gate", State.FAIL, f"{versions}: nothing holds back {'; '.join(let_through)}",
            f"install the version that Governor is tested on: pip install mitmproxy=={TESTED}")
    elif version.VERSION != TESTED:
        yield Check(
            "gate", State.WARN, f"{versions}, gate self-test passed; Governor is tested on {TESTED}",
            f"pip install mitmproxy=={TESTED}")
    else:
        yield Check("gate", State.OK, f"{versions}, gate self-test passed")


async def _let_through() -> list[str]:
    """What this mitmproxy would let past the gate, with its own dispatch and with the fast one."""
    stub_guards = lambda stub: Hooks(stub, stub, stub, stub, stub, stub).guards()  # noqa: E731
    return [*gate_trial.failures(stub_guards, None), *gate_trial.failures(stub_guards, dispatch.convert)]
