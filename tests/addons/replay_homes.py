"""Homes with the logs of tests/replay_logs.py: signed, with the policies that judged and a vault."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from addons.journal import Secret
from addons.policy_files import read_policy
from addons.vault import Vault
from kernel import canonical
from kernel.recorded import Judging
from tests.logs import Lane, Log
from tests.replay_logs import Recorder

POLICY = """\
version: 1
rules:
  - {allow: api, to: api.example.com, methods: any, paths: [/v1/**, /open/*], max-request: 1MB, max-url: 60}
  - {allow: docs, to: [docs.example.com, pkg.example.org], methods: reads}
  - {allow: in, to: 10.1.2.3, methods: any, address: 10.0.0.0/8}
  - {deny: no-secrets, to: api.example.com, methods: any, paths: /v1/secrets/**}
  - {allow: by-day, to: unknown.example, methods: reads, when: {hours: 08:00-09:30, timezone: UTC}}
"""


def kept(text: str) -> Judging:
    """The policy of a file with this text."""
    return Judging(read_policy([("p.yaml", text.encode())]).policy)


def home(folder: Path, recorders: Iterable[Recorder], texts: Iterable[str], *, vault: bool = True) -> Path:
    """A home with these lanes; `texts` are the policies that were kept."""
    recorders = list(recorders)
    lanes: list[Lane] = []
    for each in recorders:
        lane = Lane(each.lane).open(first=not lanes, siblings=lanes)
        for entry in each.entries[2:] if not lanes else each.entries[1:]:
            lane.add_raw(canonical.encode({**entry, "seq": lane.tree.size, "prev": lane.head}))
        lanes.append(lane.checkpoint())
    Log(lanes).raise_minimum().write(folder)
    (folder / "audit" / "policies").mkdir()
    for text in texts:
        (folder / "audit" / "policies" / f"{blake3(text.encode()).hexdigest()}.yaml").write_text(text)
    if vault:
        _fill(folder / "vault.db", recorders)
    return folder


def _fill(path: Path, recorders: Iterable[Recorder]) -> None:
    vault = Vault.open(path)
    for each in recorders:
        vault.keep(each.lane, [
            Secret(number, name, each.salt(number, name), canonical.encode(value).decode())
            for number, values in each.values.items() for name, value in values.items()])
    vault.close()
