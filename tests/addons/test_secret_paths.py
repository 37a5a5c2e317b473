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


RANGE = """\
version: 1
rules:
  - allow: notify
    address: 127.0.0.0/8
    schemes: [http]
    ports: 1-65535
    methods: reads
    paths: ["/services/*"]
    secret-paths: yes
limits:
  - {max-url: 200}
"""


@pytest.mark.parametrize(("target", "headers", "code"), [
    pytest.param(f"http://gone.invalid/services/{SECRET}", (), "RESOLVE_FAILED", id="a name without address"),
    pytest.param(f"http://localhost:1/services/{SECRET}", ("X-HTTP-Method-Override: DELETE",), "METHOD_OVERRIDE",
                 id="another method for the origin"),
    pytest.param(f"http://127.0.0.1:1/other/{SECRET}", (), "PRIVATE_ADDRESS", id="another path"),
    pytest.param(f"http://127.0.0.1:1/services/{SECRET}{'x' * 200}", (), "URL_TOO_LONG", id="a long one"),
    pytest.param(f"http://127.0.0.1:1/services/{SECRET}", ("Connection: Upgrade", "Upgrade: h3"), "UPGRADE_REFUSED",
                 id="an upgrade"),
    pytest.param(f"http://127.0.0.1:1/services/{SECRET}%zz", (), "NON_CANONICAL", id="a spelling that nobody reads"),
    pytest.param(f"http://127.0.0.1:1/services/{SECRET}", ("Host: 127.0.0.2",), "DESTINATION_MISMATCH", id="two hosts"),
])
async def test_a_refused_secret_path_is_kept_and_told_nowhere(
    home: Home, target: str, headers: tuple[str, ...], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with inside(home, policy=RANGE) as place:
        answer = await place.get(target, *headers)
        (decision,) = await place.wait_for("decision")

    assert decision["code"] == code
    assert written(home) == []
    assert SECRET.encode() not in answer
    assert SECRET not in "".join(capsys.readouterr())
