"""What all tests share: counts that follow one scale, one profile for properties, and a list of what was not run."""

from __future__ import annotations

import os
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings

SCALE = float(os.environ.get("GOVERNOR_TEST_SCALE", "1"))


def scaled(count: int) -> int:
    """`count` at the everyday scale; more under `scripts/test --all`, less under `quick`, never below 1."""
    return max(1, round(count * SCALE))


# A shared machine makes single examples slow now and then; that is no property of the code.
settings.register_profile(
    "governor", max_examples=scaled(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For scripts/mutants: always the same examples, no search for the simplest one that fails, no word of it.
settings.register_profile(
    "mutants", settings.get_profile("governor"), derandomize=True, database=None,
    verbosity=Verbosity.quiet, phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("GOVERNOR_TEST_PROFILE", "governor"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once for each reason what was skipped: a machine without nginx is told so in one line, not in forty."""
    skipped = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if not skipped:
        return
    terminalreporter.section("not run")
    for reason, tests in sorted(skipped.items()):
        terminalreporter.line(f"{len(tests)} skipped: {reason}")
        for test in tests[:3]:
            terminalreporter.line(f"    {test}")
        if len(tests) > 3:
            terminalreporter.line(f"    and {len(tests) - 3} more")
