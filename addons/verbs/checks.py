"""What `governor doctor` says of the host: a line a check, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from addons.audit_text import escaped
from addons.doctor.check import Check, State
from addons.verbs.output import console, counted

_STYLES = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red"}


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The document of --json."""
    return {
        "ok": all(check.holds for check in checks),
        "checks": [{"name": check.name, "state": check.state.lower(), "message": check.message, "fix": check.fix}
                   for check in checks],
    }


def tell(checks: Sequence[Check]) -> None:
    """Each check with what to do, and the sum."""
    out = console()
    for check in checks:
        fix = f": {check.fix}" if check.fix else ""
        out.print(Text.assemble((f"{check.state:4}", _STYLES[check.state]), f"  {escaped(check.message + fix)}"))
    failed = sum(check.state is State.FAIL for check in checks)
    warned = sum(check.state is State.WARN for check in checks)
    if failed or warned:
        out.print(f"{counted(failed, 'problem')}, {counted(warned, 'warning')}")
