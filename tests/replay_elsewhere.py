"""Replays a log that another version of Python has written: run as a program, with the log's file as its argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kernel.replay import NO_POLICY, Replay
from tests.replay_logs import KERNEL, judging


def main(path: str) -> None:
    log = json.loads(Path(path).read_text())
    policies = {made.policy.digest: made for made in map(judging, log["policies"])}
    values = dict(log["values"])
    replay = Replay("main", lambda digest: policies.get(digest, NO_POLICY), KERNEL)
    for entry in log["entries"]:
        replay.take(entry, values.get(entry["seq"], {}))
    found = replay.found
    print(json.dumps({"equal": found.equal, "matched": found.matched, "first": repr(found.first_divergence)}))


if __name__ == "__main__":
    main(sys.argv[1])
