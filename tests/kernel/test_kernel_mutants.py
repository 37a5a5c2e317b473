"""The tests of the kernel's accounts are tests: each fault of a list is seen by the proof or the test that names it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.kernel.kernel_mutants import MUTANTS, Mutant, mutated

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1
# `scripts/test --all` tries each, an ordinary run every second, `quick` every fifth.
TRIED = MUTANTS[::1 if SCALE >= 10 else 2 if SCALE >= 1 else 5]


@pytest.fixture(scope="module")
def outcomes():
    """pytest's exit status and last words for each fault, and for none ("")."""
    halves = [[mutant.name for mutant in TRIED[start::2]] for start in (0, 1)]
    running = [subprocess.Popen([sys.executable, "-m", "tests.kernel.kernel_mutants", *names], cwd=ROOT, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for names in halves]
    said = [process.communicate(timeout=180) for process in running]
    lines = [json.loads(line) for out, _ in said for line in out.splitlines() if line.startswith("[")]
    untouched = [(status, words) for name, status, words in lines if not name]
    assert [status for status, _ in untouched] == [0, 0], said
    return {name: (status, words) for name, status, words in lines}


@pytest.mark.parametrize("mutant", TRIED, ids=lambda mutant: mutant.name)
def test_a_fault_in_the_accounts_is_seen(outcomes, mutant):
    status, words = outcomes[mutant.name]

    assert status == TESTS_FAILED, f"nothing failed in {mutant.seen_by}\n{words}"


def test_a_fault_that_stands_nowhere_or_twice_is_no_fault():
    with pytest.raises(ValueError, match="stands 0 times"):
        mutated("a", Mutant("", "step", "b", "", ""))
    with pytest.raises(ValueError, match="stands 2 times"):
        mutated("aa", Mutant("", "step", "a", "", ""))
