"""What the adapters raise. Each class is one that a caller treats differently."""

from __future__ import annotations

from enum import StrEnum


class GovernorError(Exception):
    """The root of everything that the adapters raise."""


class StartCode(StrEnum):
    """Why a start was refused. Printed as `governor: refused to start: CODE: text`."""

    POLICY_INVALID = "POLICY_INVALID"
    POLICY_MISSING = "POLICY_MISSING"
    HOME_INCOMPLETE = "HOME_INCOMPLETE"
    HOME_UNWRITABLE = "HOME_UNWRITABLE"
    KEY_PERMISSIONS = "KEY_PERMISSIONS"
    LANE_BUSY = "LANE_BUSY"
    PORT_BUSY = "PORT_BUSY"
    MODE_REFUSED = "MODE_REFUSED"
    OPTION_REFUSED = "OPTION_REFUSED"
    SELF_TEST = "SELF_TEST"
    TAMPERED = "TAMPERED"
    ROLLED_BACK = "ROLLED_BACK"
    VERSION = "VERSION"


class StartRefused(GovernorError):
    """Governor must not start. Nothing was opened that is not closed again."""

    def __init__(self, code: StartCode, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"governor: refused to start: {code}: {text}")


class AuditUnavailable(GovernorError):
    """The log cannot take entries: this flow and all after it are refused until a restart finds it whole."""


class ContractBroken(GovernorError):
    """A change of the kernel's state that must never be: nothing passes any more."""


class ReloadRefused(GovernorError):
    """A new policy was not taken; the one in force stays."""
