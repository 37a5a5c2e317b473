"""Tokens of agents with real clients: who gets through, at once, and that a token goes nowhere else."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.request

import pytest

from tests.e2e.process import started

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def token(place):
    """The token of coder-1, the first that this Governor knows."""
    before = place.governor.curl(f"{place.http.url}/before")[0]
    reply = json.loads(place.governor.verb("agents", "add", "coder-1", "--json").stdout)

    assert before == 200
    return reply["token"]


def curl(place, url, *arguments):
    return place.governor.curl("--cacert", str(place.governor.ca), *arguments, url)[0]


def origins(place):
    return (f"{place.http.url}/a", f"{place.https.url}/a")


def test_from_the_first_token_on_a_flow_without_one_gets_407(place, token):
    seen = len(place.http.seen.requests), place.https.seen.connections
    status, body, _ = place.governor.curl(f"{place.http.url}/a")

    assert (status, json.loads(body)["code"]) == (407, "IDENTITY_REQUIRED")
    assert place.governor.curl(f"{place.https.url}/a")[0] in (0, 407)
    assert (len(place.http.seen.requests), place.https.seen.connections) == seen


@pytest.mark.parametrize("user", ["coder-1", "whoever"])
def test_the_token_as_the_proxys_password_gets_through_in_clear_and_in_a_tunnel(place, token, user):
    assert [curl(place, url, "-U", f"{user}:{token}") for url in origins(place)] == [200, 200]


def test_the_entry_names_the_agent_and_the_evidence(place, token):
    curl(place, f"{place.http.url}/named", "-U", f"coder-1:{token}")

    assert place.governor.entries("decision")[-1]["agent"] == {"id": "coder-1", "by": "proxy-auth"}


def test_a_wrong_token_and_the_name_of_another_agent_get_407(place, token):
    place.governor.verb("agents", "add", "other")
    answers = [curl(place, f"{place.http.url}/a", "-U", login) for login in ("coder-1:gov_wrong", f"other:{token}")]

    assert answers == [407, 407]


def test_a_token_is_taken_back_between_two_requests_of_one_connection(place, token):
    spare = json.loads(place.governor.verb("agents", "add", "short-lived", "--json").stdout)["token"]
    login = {"Proxy-Authorization": "Basic " + base64.b64encode(f"x:{spare}".encode()).decode()}
    connection = http.client.HTTPConnection("127.0.0.1", place.governor.port, timeout=20)
    statuses = []
    for step in range(2):
        connection.request("GET", f"{place.http.url}/kept", headers=login)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
        if step == 0:
            place.governor.verb("agents", "remove", "short-lived")
    connection.close()

    assert statuses == [200, 407]


def test_a_tunnel_that_is_open_ends_with_its_token(place, token):
    """The request inside a tunnel has no credentials of its own: the tunnel's are asked again."""
    spare = json.loads(place.governor.verb("agents", "add", "tunneller", "--json").stdout)["token"]
    login = {"Proxy-Authorization": f"Bearer {spare}"}
    context = ssl.create_default_context(cafile=str(place.governor.ca))
    connection = http.client.HTTPSConnection("127.0.0.1", place.governor.port, timeout=20, context=context)
    connection.set_tunnel("localhost", place.https.port, headers=login)
    connection.request("GET", "/inside")
    first = connection.getresponse()
    first.read()
    place.governor.verb("agents", "remove", "tunneller")
    connection.request("GET", "/inside-again")
    second = connection.getresponse()
    second.read()
    connection.close()

    assert (first.status, second.status in (403, 407)) == (200, True)
    assert "GET /inside-again" not in place.https.seen.lines


def test_a_token_reaches_neither_the_origin_nor_the_home_nor_the_output(place, token):
    for url in origins(place):
        curl(place, url, "-U", f"coder-1:{token}")
    secrets = [token, base64.b64encode(f"coder-1:{token}".encode()).decode()]
    requests = str(place.http.seen.requests) + str(place.https.seen.requests)
    kept = b"".join(path.read_bytes() for path in place.governor.home.rglob("*") if path.is_file())
    told = "\n".join(place.governor.output)

    for secret in secrets:
        assert secret not in requests
        assert secret.encode() not in kept
        assert secret not in told
    assert "proxy-authorization" not in requests.lower()


def test_the_list_tells_when_an_agent_was_last_seen(place, token):
    curl(place, f"{place.http.url}/seen", "-U", f"coder-1:{token}")
    rows = json.loads(place.governor.verb("agents", "list", "--json").stdout)

    assert {row["id"]: row["last_seen"] is not None for row in rows}["coder-1"]


def test_tokens_are_known_again_after_a_restart(tmp_path, place):
    with started(tmp_path) as governor:
        made = json.loads(governor.verb("agents", "add", "coder-1", "--json").stdout)["token"]
    offline = json.loads(governor.verb("agents", "rotate", "coder-1", "--json").stdout)["token"]
    with started(tmp_path) as governor:
        answers = [governor.curl("-U", f"coder-1:{login}", f"{place.http.url}/a")[0] for login in (made, offline)]
        result = governor.verify()["result"]

    assert (answers, result) == ([407, 200], "verified")


def test_a_halted_agent_is_refused_until_it_is_released_and_others_are_not(place, token):
    other = json.loads(place.governor.verb("agents", "add", "other-2", "--json").stdout)["token"]
    login, url = ("-U", f"coder-1:{token}"), f"{place.http.url}/a"
    place.governor.verb("agents", "halt", "coder-1", "--reason", "a test")
    refused = place.governor.curl(*login, url)
    others = curl(place, url, "-U", f"other-2:{other}")
    status = json.loads(place.governor.verb("status", "--json").stdout)
    with urllib.request.urlopen(place.governor.metrics, timeout=10) as answer:
        metrics = answer.read().decode()
    place.governor.verb("agents", "release", "coder-1", "--reason", "the test is over")

    assert (refused[0], json.loads(refused[1])["code"], others) == (403, "AGENT_HALTED", 200)
    assert status["halted"] == ["coder-1"]
    assert any("governor agents show coder-1" in hint for hint in status["hints"])
    assert 'governor_halted{agent="coder-1",reason="OPERATOR"} 1.0' in metrics
    assert curl(place, url, *login) == 200


def test_a_quarantined_agent_only_reads(place, token):
    login, url = ("-U", f"coder-1:{token}"), f"{place.http.url}/a"
    place.governor.verb("agents", "quarantine", "coder-1", "--for", "1h", "--reason", "a test")
    answers = [curl(place, url, *login), curl(place, url, *login, "-d", "x")]
    me = json.loads(place.governor.curl(*login, "http://governor.internal/me")[1])
    place.governor.verb("agents", "release", "coder-1", "--reason", "the test is over")

    assert answers == [200, 403]
    assert (me["halted"], me["quarantined_until"] is not None) == (False, True)


def test_what_was_done_while_nothing_ran_is_in_force_from_the_next_start_on(tmp_path, place):
    url = f"{place.http.url}/a"
    with started(tmp_path) as governor:
        token = json.loads(governor.verb("agents", "add", "coder-1", "--json").stdout)["token"]
    governor.verb("agents", "halt", "coder-1", "--reason", "seen at night")
    with started(tmp_path) as governor:
        answers = [governor.curl("-U", f"coder-1:{token}", url)[0]]
        governor.verb("agents", "release", "coder-1", "--reason", "looked at")
        answers.append(governor.curl("-U", f"coder-1:{token}", url)[0])
        acts = [(entry["act"], entry["by"]) for entry in governor.entries("operator")]
        result = governor.verify()["result"]

    assert (answers, result) == ([403, 200], "verified")
    assert acts[-2][0] == "agents halt"
    assert acts[-2][1].startswith("cli/")
    assert acts[-1] == ("agents release", "control")
