"""Whose a home is that root starts a run on."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from addons import service_user
from addons.sandbox.demotion import Owner, owner_of
from addons.sandbox.run_folder import locked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone can be somebody else")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """That of a run, with pins of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = tmp_path / "runs" / "one"
    made.mkdir(parents=True)
    return made


def test_a_new_home_belongs_to_a_user_of_governors_own_and_stays_his_with_all_that_root_makes_in_it(tmp_path, folder):
    home = tmp_path / "state" / "home"
    new = owner_of(home, folder)
    (home / "policy.yaml").touch()
    (elsewhere := tmp_path / "of-roots").touch()
    (home / "link").symlink_to(elsewhere)
    os.link(elsewhere, home / "the same file")

    assert new == Owner(*service_user.chosen())
    assert owner_of(home, folder) == new
    assert {path.lstat().st_uid for path in (home, home / "keys", home / "policy.yaml", home / "link")} == {new.user}
    assert elsewhere.stat().st_uid == 0


def test_whoever_may_read_the_folder_above_a_home_cannot_keep_a_run_from_beginning(tmp_path, folder):
    with ThreadPoolExecutor() as beside, locked(tmp_path):
        assert beside.submit(owner_of, tmp_path / "home", folder).result(10).user == service_user.chosen()[0]


def test_of_runs_that_begin_at_once_none_takes_a_new_home_for_roots(tmp_path, folder):
    with ThreadPoolExecutor(8) as beside:
        found = set(beside.map(lambda _: owner_of(tmp_path / "home", folder), range(8)))

    assert found == {Owner(*service_user.chosen())}
