"""What a refusal looks like on the wire, who is asked for credentials, and where a token never shows up."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.conftest import Place
from tests.e2e.origins import Origin, serving
from tests.e2e.process import POLICY, Governor, started

pytestmark = pytest.mark.e2e

FIELDS = {"type", "title", "status", "detail", "verdict", "code", "rule", "agent", "flow", "entry", "next_step",
          "error"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def by_rule(governor: Governor, scheme: str) -> wire.Answer:
    """The refusal of a rule with `tell`, plain or inside a tunnel."""
    return over(governor, scheme, "gist.example.org", "POST", "/x")


def over(governor: Governor, scheme: str, authority: str, method: str, path: str,
         *headers: tuple[str, str]) -> wire.Answer:
    if scheme == "http":
        answer = wire.ask(governor.port, wire.plain(method, f"http://{authority}{path}", *headers), method)
    elif scheme == "https":
        with wire.tunnel(governor.port, governor.ca, with_port(authority)) as inside:
            answer = wire.send(inside, wire.request(method, path, (("Host", authority), *headers)), method)
    else:
        with wire.tunnel(governor.port, governor.ca, with_port(authority), alpn=("h2",)) as inside:
            answer = wire.Http2(inside).ask(wire.fields(method, authority, path, *headers))
    assert answer is not None
    return answer


def with_port(authority: str) -> str:
    return authority if ":" in authority else f"{authority}:443"


EACH_WAY = pytest.mark.parametrize("scheme", ["http", "https", "h2"])


@EACH_WAY
def test_a_refusal_has_every_field(place: Place, scheme: str) -> None:
    problem = by_rule(place.governor, scheme).problem
    entry = place.governor.entries("decision")[-1]

    assert set(problem) == FIELDS
    assert UUID.fullmatch(problem.pop("flow"))
    assert problem == {
        "type": "about:blank", "title": "Forbidden", "status": 403, "verdict": "deny", "code": "RULE_DENY",
        "rule": "no-gists", "agent": "local", "entry": f"main/{entry['seq']}",
        "detail": "Governor refused POST to gist.example.org: rule no-gists",
        "error": "Governor refused POST to gist.example.org: rule no-gists",
        "next_step": "Stop: another method, mirror or retry is refused too. Instead: publish to the internal snippet "
                     f"store instead. Ask #agent-platform and quote main/{entry['seq']}.",
    }


@EACH_WAY
def test_a_refusal_has_its_headers_and_names_its_entry_in_the_log(place: Place, scheme: str) -> None:
    answer = by_rule(place.governor, scheme)
    entry = place.governor.entries("decision")[-1]

    assert {name: answer.headers[name] for name in (
        "content-type", "cache-control", "x-should-retry", "x-governor-verdict", "x-governor-code", "x-governor-entry",
    )} == {
        "content-type": "application/problem+json", "cache-control": "no-store", "x-should-retry": "false",
        "x-governor-verdict": "deny", "x-governor-code": "RULE_DENY", "x-governor-entry": f"main/{entry['seq']}"}
    assert (entry["code"], entry["rule"], entry["flow"]) == ("RULE_DENY", "no-gists", answer.problem["flow"])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_reason_phrase_has_fixed_parts_only(place: Place, scheme: str) -> None:
    assert by_rule(place.governor, scheme).reason == "Forbidden by Governor: RULE_DENY"


@EACH_WAY
def test_a_refused_head_has_no_body(place: Place, scheme: str) -> None:
    answer = over(place.governor, scheme, "gist.example.org", "HEAD", "/x")

    assert (answer.status, answer.code, answer.body) == (403, "RULE_DENY", b"")


def test_nothing_the_agent_chose_becomes_a_header(place: Place) -> None:
    answer = over(place.governor, "http", "nowhere.example.org", "X-EVIL", "/%0d%0aset-cookie:%20a=b")

    assert (answer.status, answer.reason) == (403, "Forbidden by Governor: DEFAULT_DENY")
    assert "set-cookie" not in answer.headers


@EACH_WAY
def test_a_model_api_is_told_in_its_own_form_that_the_login_is_fine(place: Place, scheme: str) -> None:
    error = over(place.governor, scheme, llm_host(), "POST", "/v1/messages").problem["error"]

    assert error["type"] == "permission_error"
    assert "Your login is fine." in error["message"]


def llm_host() -> str:
    table = Path(__file__).resolve().parents[2] / "policies" / "data" / "llm-hosts.yaml"
    found = re.search(r"^\s*- *(?:host: *)?([a-z0-9.-]+\.[a-z]{2,})\s*$", table.read_text(), re.MULTILINE)
    assert found, "policies/data/llm-hosts.yaml names no host"
    return found[1]


def test_grpc_gets_a_status_of_its_own(place: Place) -> None:
    answer = over(place.governor, "h2", "gist.example.org", "POST", "/svc/Call", ("content-type", "application/grpc"))

    assert (answer.status, answer.headers["grpc-status"]) == (200, "7")
    assert answer.headers["grpc-message"] == "Governor refused POST to gist.example.org: rule no-gists"


def test_an_origin_that_is_down_is_not_a_refusal(place: Place) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        answer = over(place.governor, "http", f"localhost:{closed.getsockname()[1]}", "GET", "/")

    assert (answer.status, answer.problem["verdict"], answer.problem["code"]) == (502, "allow", "ORIGIN_FAILED")
    assert set(answer.problem) == FIELDS


def test_a_client_that_distrusts_the_ca_is_refused_at_connect(place: Place) -> None:
    """It would never see a refusal inside the tunnel: the status line is all that it can show."""
    stranger = ssl.create_default_context()
    with wire.connected(place.governor.port, "gist.example.org:443") as connection, pytest.raises(ssl.SSLError):
        stranger.wrap_socket(connection, server_hostname="gist.example.org")
    place.governor.wait_for_entry("connection")

    with pytest.raises(wire.Refused) as refused, wire.connected(place.governor.port, "gist.example.org:443"):
        pass
    assert refused.value.answer is not None
    assert refused.value.answer.reason.startswith("Forbidden by Governor: ")
    assert place.governor.curl(f"{place.https.url}/wanted")[0] == 200


# Identity


DUMP = '''
"""Writes everything that a flow or connection shows to addons, at every hook."""
from mitmproxy import hooks

class Dump:
    name = {path!r}

def hook(event):
    def dump(self, *data):
        with open({path!r}, "a") as file:
            for item in data:
                state = item.get_state() if hasattr(item, "get_state") else None
                print(event, state, getattr(item, "metadata", None), file=file)
    return dump

for event in hooks.all_hooks:
    if event not in ("load", "configure", "running", "done", "update", "add_log"):
        setattr(Dump, event, hook(event))

addons = [Dump()]
'''


@dataclass(frozen=True)
class Guarded:
    """A Governor with registered agents between two scripts that write down all they see."""

    governor: Governor
    origin: Origin
    token: str
    dumps: tuple[Path, Path]


def credentials(token: str, agent: str = "coder-1") -> tuple[str, str]:
    return "Proxy-Authorization", "Basic " + base64.b64encode(f"{agent}:{token}".encode()).decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    scripts, dumps = [folder / "ahead.py", folder / "behind.py"], (folder / "ahead.txt", folder / "behind.txt")
    for script, dump in zip(scripts, dumps, strict=True):
        script.write_text(DUMP.format(path=str(dump)))
    with (serving(chain=certificate[0]) as origin,
          started(folder, POLICY, ["-s", str(scripts[1])], trust=certificate[1], ahead=scripts[:1]) as governor):
        yield Guarded(governor, origin, new_token(governor, "add", "coder-1"), dumps)


def new_token(governor: Governor, act: str, name: str) -> str:
    return str(json.loads(governor.verb("agents", act, name, "--json").stdout)["token"])


@pytest.mark.parametrize(("password", "code"), [
    pytest.param(None, "IDENTITY_REQUIRED", id="no token"),
    pytest.param("gov_" + "A" * 43, "IDENTITY_REFUSED", id="an unknown token"),
])
@pytest.mark.parametrize("connect", [False, True], ids=["a plain request", "CONNECT"])
def test_who_is_not_known_gets_407_with_a_challenge(guarded: Guarded, connect: bool, password: str | None,
                                                    code: str) -> None:
    headers = [] if password is None else [credentials(password)]
    before = guarded.origin.seen.connections
    authority = f"localhost:{guarded.origin.port}"
    if connect:
        answer = wire.ask(guarded.governor.port, wire.request("CONNECT", authority, (("Host", authority), *headers)))
    else:
        answer = wire.ask(guarded.governor.port, wire.plain("GET", f"http://{authority}/", *headers))

    assert answer is not None
    assert (answer.status, answer.reason) == (407, "Proxy Authentication Required")
    assert answer.headers["proxy-authenticate"].startswith("Basic realm=")
    assert (answer.problem["code"], answer.problem["agent"], set(answer.problem)) == (code, None, FIELDS)
    assert guarded.origin.seen.connections == before


def test_a_rotated_token_is_refused_at_once_also_in_a_tunnel_that_is_open(guarded: Guarded) -> None:
    governor, authority = guarded.governor, f"localhost:{guarded.origin.port}"
    old = new_token(governor, "add", "coder-2")

    def status(inside: socket.socket, path: str) -> int | None:
        answer = wire.send(inside, wire.request("GET", path, (("Host", authority),)))
        return answer and answer.status

    with wire.tunnel(governor.port, governor.ca, authority, credentials(old, "coder-2")) as inside:
        before = status(inside, "/before")
        new = new_token(governor, "rotate", "coder-2")
        after = status(inside, "/after")
    with wire.tunnel(governor.port, governor.ca, authority, credentials(new, "coder-2")) as inside:
        renewed = status(inside, "/renewed")

    assert (before, after, renewed) == (200, 407, 200)
    assert "GET /after" not in guarded.origin.seen.lines


def test_every_change_of_an_agent_is_in_the_log(guarded: Guarded) -> None:
    for act in ("add", "rotate", "remove"):
        guarded.governor.verb("agents", act, "coder-3", "--json")

    entries = guarded.governor.entries("operator")
    acts = [(entry["act"], entry["by"]) for entry in entries if entry["agent"] == "coder-3"]

    assert acts == [("agents add", "control"), ("agents rotate", "control"), ("agents remove", "control")]


def test_a_token_is_in_no_flow_no_file_and_no_output(guarded: Guarded) -> None:
    governor, authority = guarded.governor, f"localhost:{guarded.origin.port}"
    name, value = credentials(guarded.token)
    for spelling in (name, name.lower(), "PROXY-AUTHORIZATION"):
        with wire.tunnel(governor.port, governor.ca, authority, (spelling, value)) as inside:
            wire.send(inside, wire.request("GET", "/inside", (("Host", authority), (spelling, value))))
        for url in (f"http://{authority}/", "http://gist.example.org/"):
            wire.ask(governor.port, wire.plain("GET", url, (spelling, value)))
    wrong = "gov_" + "B" * 43
    wire.ask(governor.port, wire.plain("GET", f"http://{authority}/", credentials(wrong)))
    governor.wait_for_entry("decision", 10)

    dumped = "".join(dump.read_text() for dump in guarded.dumps)
    kept = b"".join(path.read_bytes() for path in governor.home.rglob("*") if path.is_file()).decode("latin-1")
    everything = dumped + kept + "\n".join(governor.output) + str(guarded.origin.seen.requests)
    for secret in (guarded.token, value.partition(" ")[2], wrong):
        assert secret not in everything
    for hook in ("http_connect", "requestheaders", "request", "response", "server_connect", "client_disconnected"):
        assert all(hook in dump.read_text() for dump in guarded.dumps), f"the dump was not given {hook}"
    assert "proxy-authorization" not in str(guarded.origin.seen.requests).lower()
