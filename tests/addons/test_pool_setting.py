"""`governor_pool`: which ledgers there are, which is meant without a word, and that no password is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from addons.errors import StartCode, StartRefused
from addons.pools.setting import Kind, Pool, pool_for, read, without_secrets

HOME = Path("/nonexistent/governor")


@pytest.fixture(autouse=True)
def _no_ledger_in_the_environment(monkeypatch):
    monkeypatch.delenv("GOVERNOR_POOL", raising=False)


@pytest.mark.parametrize(("option", "pool"), [
    ("", None),
    ("memory:", Pool(Kind.MEMORY)),
    ("sqlite:/var/lib/pool.db", Pool(Kind.SQLITE, "/var/lib/pool.db")),
    ("redis://cache.example.org", Pool(Kind.REDIS, "redis://cache.example.org")),
    ("rediss://gov:pw@cache.example.org:6380/2", Pool(Kind.REDIS, "rediss://gov:pw@cache.example.org:6380/2")),
])
def test_each_ledger_is_named_by_its_scheme(option, pool):
    assert read(option) == pool


def test_the_environment_names_the_ledger_where_the_option_does_not(monkeypatch):
    monkeypatch.setenv("GOVERNOR_POOL", "rediss://gov:pw@cache.example.org")

    assert read("") == Pool(Kind.REDIS, "rediss://gov:pw@cache.example.org")
    assert read("memory:") == Pool(Kind.MEMORY)
    assert str(read("")) == "rediss://gov:(secret)@cache.example.org"


def test_an_environment_that_names_no_ledger_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("GOVERNOR_POOL", "redis://u:pw@host:port")
    with pytest.raises(StartRefused, match=r"GOVERNOR_POOL=.*write memory:") as refused:
        read("")

    assert "pw" not in refused.value.text


def test_a_path_is_taken_from_where_governor_was_started(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    assert read("sqlite:pool.db") == Pool(Kind.SQLITE, str(tmp_path / "pool.db"))


@pytest.mark.parametrize("option", [
    "postgres://u:pw@db.example.org", "memory", "memory:x", "sqlite:", "sqlite:///x", "redis:", "redis://",
    "redis://host:port", "pw-secret", "redis://[::1",
])
def test_what_is_no_ledger_is_refused_without_its_secrets(option):
    with pytest.raises(StartRefused, match="write memory:, sqlite:PATH, redis://HOST") as refused:
        read(option)

    assert refused.value.code is StartCode.OPTION_REFUSED
    assert "pw" not in refused.value.text or option == "pw-secret"


def test_several_workers_share_the_file_of_their_home_and_one_keeps_its_own():
    assert pool_for(None, HOME, 1) == Pool(Kind.MEMORY)
    assert pool_for(None, HOME, 2) == Pool(Kind.SQLITE, "/nonexistent/governor/pool.db")
    assert pool_for(Pool(Kind.SQLITE, "/x"), HOME, 1) == Pool(Kind.SQLITE, "/x")


def test_several_workers_with_a_budget_each_are_refused():
    with pytest.raises(StartRefused, match="budgets of its own"):
        pool_for(Pool(Kind.MEMORY), HOME, 2)


@pytest.mark.parametrize(("option", "told"), [
    ("memory:", "memory:"),
    ("sqlite:/x/y", "sqlite:/x/y"),
    ("redis://h.example.org:6379/0", "redis://h.example.org:6379/0"),
    ("redis://:pw@h.example.org", "redis://:(secret)@h.example.org"),
    ("rediss://gov:p:w@h.example.org/1", "rediss://gov:(secret)@h.example.org/1"),
    ("redis://h.example.org?password=pw&x=1", "redis://h.example.org?(secret)"),
    ("redis://gov@h.example.org", "redis://gov@h.example.org"),
])
def test_a_password_is_never_told(option, told):
    assert without_secrets(option) == told
    assert option.startswith("redis") is ("redis" in str(read(option)))
    assert str(read(option)) == told
