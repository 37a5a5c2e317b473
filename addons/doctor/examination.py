"""Everything that is looked at, in the order in which it is told. Bounded in time, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from addons.doctor import exposure, listening, log, program, room, running, trusted, what_tiers
from addons.doctor.check import Check, State
from addons.home import Paths


def examined(home: Path) -> list[Check]:
    """All checks of this machine and of the home."""
    paths, now = Paths(Path(home).resolve()), datetime.now(UTC)
    looks: tuple[Callable[[], Iterable[Check]], ...] = (
        program.checks, lambda: room.checks(paths, now), lambda: exposure.checks(paths), lambda: log.checks(paths, now),
        lambda: trusted.policy_checks(paths), lambda: trusted.ca_checks(paths, now), lambda: listening.checks(paths),
        lambda: running.checks(paths), what_tiers.checks,
    )
    return [check for look in looks for check in _looked(look)]


def _looked(look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What cannot be looked at is a finding like another, and does not keep the rest from being told."""
    try:
        yield from look()
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        yield Check(
            "readable", State.FAIL, f"{where}{fault.strerror or fault}",
            "run governor doctor as the user that Governor runs as")
