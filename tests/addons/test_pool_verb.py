"""`governor pool`: what it says of a ledger, and that looking at one makes none."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from addons.pools.in_file import FileLedger
from addons.verbs.pool import pool


def run(*arguments):
    return CliRunner().invoke(pool, [*map(str, arguments)], env={"GOVERNOR_POOL": None})


def test_a_ledger_is_shown_with_who_takes_part(tmp_path):
    ledger = FileLedger(tmp_path / "pool.db")
    ledger.join("governor/x/w0", "r1", {})
    ledger.close()
    shown = run("status", "--home", tmp_path, "--json")

    assert shown.exit_code == 0
    assert [each["holder"] for each in json.loads(shown.stdout)["processes"]] == ["governor/x/w0"]


@pytest.mark.parametrize("named", [True, False])
def test_to_look_at_a_file_that_is_not_there_is_refused_and_makes_none(tmp_path, named):
    path = tmp_path / "pool.db"
    shown = run("status", "--home", tmp_path, *(["--pool", f"sqlite:{path}"] if named else []))

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert f"{path} is not there" in shown.stderr
    assert not path.exists()
