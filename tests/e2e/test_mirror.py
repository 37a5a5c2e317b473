"""`governor.internal` asked by real clients, in every way in which a request can come, and never sent anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.conftest import Place

pytestmark = pytest.mark.e2e

OWN = "governor.internal"


@pytest.fixture(params=["http", "https"])
def mirror(request: pytest.FixtureRequest) -> str:
    """The URL of the reserved name, plain and through a tunnel."""
    return f"{request.param}://{OWN}"


@pytest.fixture
def untouched(place: Place) -> Iterator[None]:
    """Whatever a test asks of Governor itself, no origin sees it."""
    before = place.http.seen.connections, place.https.seen.connections
    yield

    assert (place.http.seen.connections, place.https.seen.connections) == before


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_is_told_who_it_is(place: Place, mirror: str, version: str, untouched: None) -> None:
    status, body, _ = place.governor.curl(version, f"{mirror}/me")

    told = json.loads(body)
    assert (status, told["agent"], told["mode"], told["contact"]) == (200, "local", "enforce", "#agent-platform")


def test_what_it_says_of_a_request_is_what_that_request_meets(place: Place, mirror: str, untouched: None) -> None:
    url = "https://gist.example.org/new"
    question = ["-G", "--data-urlencode", f"url={url}", "-d", "method=POST"]
    said = json.loads(place.governor.curl(*question, f"{mirror}/may")[1])
    met = json.loads(place.governor.curl("-d", "x", url)[1])

    assert {name: said[name] for name in ("verdict", "code", "rule", "detail")} == {
        name: met[name] for name in ("verdict", "code", "rule", "detail")}
    assert met["next_step"].startswith(said["next_step"].removesuffix("."))


def test_a_refusal_is_listed_under_the_entry_that_its_client_was_told(place: Place, mirror: str) -> None:
    entry = json.loads(place.governor.curl("https://gist.example.org/a-path?a=query")[1])["entry"]
    status, body, _ = place.governor.curl(f"{mirror}/refusals")

    latest = json.loads(body)["refusals"][0]
    assert (status, latest["entry"], latest["host"], latest["rule"]) == (200, entry, "gist.example.org", "no-gists")
    assert "a-path" not in body
    assert "query" not in body


@pytest.mark.parametrize("port", [1, 8443])
def test_every_port_of_the_name_is_governors(place: Place, port: int, untouched: None) -> None:
    assert place.governor.curl(f"http://{OWN}:{port}/me")[0] == 200
    assert place.governor.curl(f"https://{OWN}:{port}/me")[0] == 200


@pytest.mark.parametrize("spelling", ["GOVERNOR.internal", "governor.internal.", "Governor.Internal."])
def test_every_spelling_of_the_name_is_the_name(place: Place, spelling: str, untouched: None) -> None:
    assert place.governor.curl(f"http://{spelling}/me")[0] == 200


def test_a_name_below_it_is_not(place: Place, untouched: None) -> None:
    status, body, _ = place.governor.curl(f"http://x.{OWN}/me")

    assert (status, json.loads(body)["code"]) == (403, "DEFAULT_DENY")


def test_a_request_that_names_another_host_besides_is_refused(place: Place, untouched: None) -> None:
    for target, host in ((f"http://{OWN}/me", "localhost"), ("http://localhost/me", OWN)):
        answer = wire.ask(place.governor.port, wire.request("GET", target, (("Host", host),)))

        assert answer is not None
        assert answer.code == "DESTINATION_MISMATCH"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_takes_nothing(place: Place, mirror: str, method: str, untouched: None) -> None:
    assert place.governor.curl("-X", method, "-d", "x", f"{mirror}/me")[0] == 405


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_a_flood_of_bytes_for_it_is_not_collected(place: Place, mirror: str, tmp_path: Path, untouched: None) -> None:
    """The name is Governor's own, and a body for it takes as little memory as any other."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    before = peak_kib(place)
    place.governor.curl("-X", "POST", "-T", str(large), f"{mirror}/me")

    assert peak_kib(place) - before < 64 * 1024


def peak_kib(place: Place) -> int:
    status = Path(f"/proc/{place.governor.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
