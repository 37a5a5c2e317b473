"""The path of a webhook acts for whoever has it: it is judged and sent, and kept nowhere."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from addons.audit_text import Vault, as_text
from addons.home import Home
from kernel import entry
from tests.addons.inside import inside, raw_origin

SECRET = "T0AAA-s3cret-path"
POLICY = """\
version: 1
rules:
  - allow: notify
    to: localhost
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: reads
    paths: ["/services/*"]
"""


def kept(home: Home) -> dict[int, str]:
    """What the vault has in the place of paths, by entry."""
    with sqlite3.connect(home.paths.folder / "vault.db") as database:
        return dict(database.execute("SELECT seq, value FROM \"values\" WHERE name = 'path'").fetchall())


def written(home: Home) -> list[Path]:
    """The files of the home in which the secret stands."""
    files = [path for path in home.paths.folder.rglob("*") if path.is_file()]
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(("path", "status", "matched"), [
    (f"/services/{SECRET}", b"200", ["/services/*"]),
    (f"/elsewhere/{SECRET}", b"403", ["/**"]),
])
async def test_what_a_rule_calls_a_secret_path_is_kept_nowhere(
    home: Home, path: str, status: bytes, matched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with raw_origin() as raw, inside(home, policy=f"{POLICY}    secret-paths: yes\n") as place:
        answer = await place.get(f"{raw.url}{path}")
        (decision,) = await place.wait_for("decision")
    told = as_text(decision, Vault(home.paths.folder / "vault.db"), coloured=False)

    assert answer.split(b" ")[1] == status
    assert written(home) == []
    assert json.loads(kept(home)[decision["seq"]]) == matched
    assert f'[secret; the vault says that it matched ["{matched[0]}"]]' in told
    assert SECRET not in "".join(capsys.readouterr())


async def test_the_commitment_still_tells_the_path_to_whoever_knows_it(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=f"{POLICY}    secret-paths: yes\n") as place:
        await place.get(f"{raw.url}/services/{SECRET}")
        (decision,) = await place.wait_for("decision")
    with sqlite3.connect(home.paths.folder / "vault.db") as database:
        ((salt,),) = database.execute("SELECT salt FROM \"values\" WHERE name = 'path'").fetchall()

    assert entry.commitment(salt, "path", f'"/services/{SECRET}"'.encode()) == decision["in"]["path$c"]


async def test_other_paths_are_kept_as_they_were(home: Home) -> None:
    async with raw_origin() as raw, inside(home, policy=POLICY) as place:
        await place.get(f"{raw.url}/services/{SECRET}")
        (decision,) = await place.wait_for("decision")

    assert json.loads(kept(home)[decision["seq"]]) == f"/services/{SECRET}"
