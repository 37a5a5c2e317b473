"""A fault at any hook, another addon's or Governor's own, refuses or closes in time, and costs nobody else anything."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.faults import layer
from tests.e2e.faults.layer import Ends, Result, Row, Scenario
from tests.e2e.origins import make_certificate, serving
from tests.e2e.process import Governor, free_port, started

pytestmark = pytest.mark.e2e

# The deadline of five seconds, and what a busy machine takes.
IN_TIME = 12.0
CLIENTS = 64

# What a client gets from a fault at this hook, on this way: a status, or the end of its connection.
EXPECTED: dict[str, tuple[Scenario, int | None]] = {
    "client_connected": (layer.plainly, None),
    "next_layer": (layer.plainly, None),
    "requestheaders": (layer.plainly, 403),
    "request": (layer.plainly, 403),
    "server_connect": (layer.plainly, 502),
    "server_connected": (layer.plainly, 502),
    "responseheaders": (layer.plainly, 403),
    "response": (layer.plainly, 403),
    "server_disconnected": (layer.plainly, 200),
    "client_disconnected": (layer.plainly, 200),
    "server_connect_error": (layer.unreachable, 502),
    "error": (layer.unreachable, 502),
    "http_connect": (layer.tunnelled, 403),
    "http_connected": (layer.tunnelled, None),
    "http_connect_error": (layer.refused_tunnel, 403),
    "tls_clienthello": (layer.tunnelled, None),
    "tls_start_client": (layer.tunnelled, None),
    "tls_established_client": (layer.tunnelled, None),
    "tls_failed_client": (layer.distrusting, None),
    "tls_start_server": (layer.tunnelled, 502),
    "tls_established_server": (layer.tunnelled, 502),
    "tls_failed_server": (layer.distrusted, 502),
}
# At these the request has reached its origin, because its verdict let it.
AFTER_THE_VERDICT = {"responseheaders", "response", "server_disconnected", "client_disconnected"}
FAULTS = ("exception", "error", "cancel", "hang", "slow")
ROWS = [Row(number, *row) for number, row in enumerate(
    (place, hook, fault) for hook in EXPECTED for place in ("beside", "within") for fault in FAULTS)]


@dataclass
class Table:
    """The whole table, run once, its rows beside each other and beside a client that meets no fault."""

    ends: Ends
    results: dict[Row, Future[Result]] = field(default_factory=dict)
    neighbour: list[int | None] = field(default_factory=list)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Table]:
    folder = tmp_path_factory.mktemp("faults")
    script = folder / "faults.py"
    script.write_text(layer.SCRIPT.format(rows={row.client: (row.place, row.hook, row.fault) for row in ROWS}))
    foreign = folder / "foreign"
    foreign.mkdir()
    with (serving() as http, serving(chain=certificate[0]) as https,
          serving(chain=make_certificate(foreign)[0]) as distrusted,
          started(folder, options=["-s", str(script)], trust=certificate[1]) as governor,
          ThreadPoolExecutor(CLIENTS) as pool):
        run = Table(Ends(governor, http, https, distrusted, free_port()))
        # Those that wait for the deadline first, so that the others run meanwhile.
        for row in sorted(ROWS, key=lambda row: row.fault != "hang"):
            run.results[row] = pool.submit(layer.meet, run.ends, row, EXPECTED[row.hook][0])
        ask_beside(run)
        yield run


def ask_beside(run: Table) -> None:
    """One client after another that meets no fault, until the last row has its result."""
    while not all(result.done() for result in run.results.values()):
        answer = wire.ask(run.ends.governor.port, wire.plain("GET", f"{run.ends.http.url}/neighbour"))
        run.neighbour.append(answer and answer.status)
        time.sleep(0.05)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_fault_refuses_or_closes_within_the_deadline(table: Table, row: Row) -> None:
    result, (scenario, refused) = table.results[row].result(), EXPECTED[row.hook]
    reached = any(row.path in line for origin in (table.ends.http, table.ends.https, table.ends.distrusted)
                  for line in origin.seen.lines)

    assert result.seconds < IN_TIME
    if row.is_fault:
        assert result.status == refused
        assert reached == (row.hook in AFTER_THE_VERDICT)
        if refused == 403 and scenario is not layer.refused_tunnel:
            assert result.code == ("DEADLINE" if row.fault == "hang" else "FAULT")
    elif scenario in (layer.plainly, layer.tunnelled):
        assert (result.status, reached) == (200, True)


def test_nobody_else_notices(table: Table) -> None:
    assert len(table.neighbour) > 5
    assert set(table.neighbour) == {200}


def test_every_fault_is_counted_and_written_down(table: Table) -> None:
    faults = [row for row in ROWS if row.is_fault]
    governor = table.ends.governor
    entries = governor.wait_for_entry("fault", len(faults))

    assert counted(governor) >= len(faults)
    assert {"OptionsError", "CancelledError", "TimeoutError", "ValueError"} <= {entry["error"] for entry in entries}
    assert "what an agent sent" not in governor.segment.read_text() + "\n".join(governor.output)


def counted(governor: Governor) -> float:
    """The faults that the metrics know of."""
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with directly.open(governor.metrics, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("governor_faults_total{"))


def test_no_flow_stays_open_and_the_log_verifies(table: Table) -> None:
    governor = table.ends.governor
    stopped = governor.stop()
    decided = {f"main/{entry['seq']}" for entry in governor.entries("decision")
               if entry["verdict"] == "allow" and entry["stage"] == "request"}

    assert stopped == 0
    assert decided == {entry["decision"] for entry in governor.entries("outcome")}
    assert governor.entries()[-1]["type"] == "close"
    assert governor.verify()["result"] == "verified"
