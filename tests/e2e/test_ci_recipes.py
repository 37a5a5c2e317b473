"""The jobs of scripts/recipes/ci: their own `governor` lines, run here in the order of the job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from addons.sandbox import tiers
from addons.sandbox.tiers import Tier
from tests.addons.test_recipes import CI, commands
from tests.e2e.process import ROOT, scratch_environment

LAUNCHER = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from addons.cli import main; main()"
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(tiers.possible(Tier.NETNS)), reason="no tier netns here")]
POLICY = "version: 1\nrules:\n  - {allow: reading, to: docs.example.org, methods: reads}\n"


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """A checkout with a policy, and `governor` on the path."""
    for name in ("bin", "checkout", "temp"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / "governor"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -P -c '{LAUNCHER.replace(chr(39), chr(34))}' \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "checkout" / "governor.yaml").write_text(POLICY)
    return scratch_environment(tmp_path) | {
        "PATH": f"{program.parent}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path / "temp"),
        "GOVERNOR_HOME": str(tmp_path / "temp" / "governor")}


def outcomes(tmp_path: Path, job: dict[str, str], service: str, agent: str) -> dict[str, int]:
    """The status of each line of a job, by its verb."""
    script = tmp_path / "checkout" / "agent.sh"
    script.write_text(f"#!/bin/sh\n{agent}\n")
    script.chmod(0o755)
    only = tmp_path / "only"
    only.mkdir()
    (only / service).write_text((CI / service).read_text())
    return {" ".join(command.split()[1:3]): subprocess.run(
        ["sh", "-ec", command], cwd=script.parent, env=job, check=False, timeout=120).returncode
        for command in commands(only)}


@pytest.mark.parametrize("service", ["github.yml", "gitlab.yml"])
def test_an_agent_that_keeps_to_the_policy_passes_and_its_evidence_holds(tmp_path, job, service):
    got = outcomes(tmp_path, job, service, "true")

    assert got == {"policy check": 0, "run --agent": 0, "audit bundle": 0, "audit verify": 0}


@pytest.mark.parametrize("service", ["github.yml", "gitlab.yml"])
def test_an_agent_that_was_refused_fails_the_job_and_its_evidence_is_kept(tmp_path, job, service):
    got = outcomes(tmp_path, job, service, "curl -s -o /dev/null http://denied.example.org/ --resolve "
                                           "denied.example.org:80:192.0.2.1\ntrue")

    assert got == {"policy check": 0, "run --agent": 1, "audit bundle": 0, "audit verify": 0}
