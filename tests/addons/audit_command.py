"""`governor audit` called inside the test's process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from addons.verbs.audit import audit


def governor(*arguments: object) -> Result:
    return CliRunner().invoke(audit, [str(argument) for argument in arguments], standalone_mode=False)


def status(result: Result) -> int:
    """The exit status of the command that ended so."""
    if result.exception is not None:
        return int(getattr(result.exception, "exit_code", 70))
    return int(result.return_value)
