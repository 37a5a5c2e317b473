"""The table between a command and the world: that nft takes it, and what its counters tell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from addons.sandbox.ruleset import KINDS, refused, ruleset

needs_nft = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="nft and root are needed")


@needs_nft
def test_nft_loads_the_table_with_single_ports_and_spans():
    loaded = subprocess.run(["unshare", "-n", "nft", "-f", "-"], input=ruleset([(80, 80), (443, 443), (8000, 8100)]),
                            capture_output=True, text=True, check=False)

    assert (loaded.returncode, loaded.stderr) == (0, "")


def test_whatever_is_not_accepted_is_refused_and_counted():
    lines = [line.strip() for line in ruleset([(443, 443)]).splitlines()]
    chains = [line for line in lines if line.startswith("type filter")]

    assert len(chains) == 4
    assert all("policy drop" in line for line in chains)
    assert [kind for kind in KINDS if not any(f"refused_{kind} reject" in line for line in lines)] == []


def test_only_kinds_that_were_refused_are_told():
    listing = json.dumps({"nftables": [
        {"metainfo": {}}, {"counter": {"name": "refused_udp", "packets": 3, "bytes": 9}},
        {"counter": {"name": "refused_tcp", "packets": 0, "bytes": 0}}]})

    assert refused(listing) == {"udp": 3}
