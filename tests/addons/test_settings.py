"""mitmproxy's options under Governor: an allow-list at the start, nothing but that afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions, options
from mitmproxy.addons import core, default_addons, dumper, keepserving, readfile
from mitmproxy.test import taddons

from addons import settings
from addons.errors import StartCode, StartRefused
from addons.settings import Frozen


class Declaring:
    def load(self, loader: Any) -> None:
        settings.add_options(loader)
        loader.add_option("web_password", str, "", "mitmweb's own")


@pytest.fixture
def opts() -> Iterator[options.Options]:
    """Every option of mitmdump, and Governor's."""
    declared = [addon for addon in default_addons() if not isinstance(addon, core.Core)]
    mitmdumps = (dumper.Dumper(), keepserving.KeepServing(), readfile.ReadFileStdin())
    with taddons.context(*declared, *mitmdumps, Declaring()) as context:
        yield context.options


def refused(opts: options.Options) -> StartRefused:
    with pytest.raises(StartRefused) as error:
        settings.check_at_start(opts)
    return error.value


def test_the_defaults_and_the_free_options_start(opts: options.Options) -> None:
    opts.update(listen_host="127.0.0.1", listen_port=8081, mode=["regular@127.0.0.1:8082"], web_password="x",
                ssl_verify_upstream_trusted_ca="ca.pem", connection_strategy="eager", rawtcp=True)

    settings.check_at_start(opts)


@pytest.mark.parametrize(("name", "value"), [
    ("ignore_hosts", ["."]), ("allow_hosts", ["x"]), ("tcp_hosts", ["."]), ("udp_hosts", ["."]), ("ssl_insecure", True),
    ("map_remote", ["|a|b"]), ("map_local", ["|a|b"]), ("modify_headers", ["/x/y"]), ("modify_body", ["/x/y"]),
    ("stream_large_bodies", "1m"), ("body_size_limit", "1m"), ("store_streamed_bodies", True), ("stickyauth", "."),
    ("stickycookie", "."), ("proxyauth", "any"), ("upstream_auth", "a:b"), ("client_replay", ["f"]), ("rfile", "f"),
    ("server_replay", ["f"]), ("save_stream_file", "f"), ("hardump", "f"), ("confdir", "/c"), ("certs", ["c.pem"]),
    ("client_certs", "c"), ("validate_inbound_headers", False), ("keep_host_header", True), ("anticomp", True),
    ("connect_addr", "127.0.0.1"), ("block_list", ["/x/403"]), ("normalize_outbound_headers", False), ("http2", False),
    ("websocket", False), ("upstream_cert", False), ("add_upstream_certs_to_client_chain", True), ("http3", False),
    ("request_client_cert", True), ("tls_version_server_min", "TLS1"), ("dns_name_servers", ["127.0.0.1"]),
])
def test_an_option_that_could_open_a_way_out_refuses_the_start(opts: options.Options, name: str, value: Any) -> None:
    # Set without asking the addons: some read the file that is named.
    opts._options[name].set(value)

    error = refused(opts)

    assert error.code is StartCode.OPTION_REFUSED
    assert name in error.text


def test_an_option_of_a_later_mitmproxy_is_refused_without_being_known(opts: options.Options) -> None:
    opts.add_option("forward_everything", bool, False, "new")
    opts.update(forward_everything=True)

    assert refused(opts).code is StartCode.OPTION_REFUSED


@pytest.mark.parametrize("mode", [
    ["regular"], ["socks5"], ["socks5@1081"], ["socks5@127.0.0.1:1081"], ["transparent"], ["transparent@8081"],
    ["transparent@10.0.0.1:8081"], ["dns"], ["dns@5353"], ["transparent@8081", "dns@10.0.0.1:5353"],
    ["regular@8081", "socks5@1081", "socks5@1082"],
])
def test_the_modes_that_are_governed_start_also_several_together(opts: options.Options, mode: list[str]) -> None:
    opts._options["mode"].set(mode)

    settings.check_at_start(opts)


@pytest.mark.parametrize("mode", [
    ["reverse:http://example.org"], ["reverse:https://example.org"], ["reverse:http3://example.org"],
    ["reverse:quic://example.org"], ["reverse:tcp://example.org:22"], ["reverse:tls://example.org"],
    ["reverse:dns://192.0.2.1"], ["reverse:udp://192.0.2.1:53"], ["upstream:http://proxy.example.org"],
    ["transparent:example.org"], ["dns:x"], ["dns:192.0.2.53"], ["transparent@"],
    ["wireguard"], ["local"], ["local:curl"], ["tun"], ["osproxy"],
    ["http3"], ["quic"], ["regular", "local"], ["socks5:example.org"], ["socks5:"], ["SOCKS5"],
    ["socks5@"], ["socks5@1081@1082"], ["socks5@70000"], ["socks5@-1"], ["socks5 "], ["socks5@x"], ["socks4"],
    ["socks5h"], ["socks5@\u0661"], [""], ["regular:x"], ["regularly"],
], ids=" and ".join)
def test_a_mode_that_is_not_governed_refuses_the_start(opts: options.Options, mode: list[str]) -> None:
    opts._options["mode"].set(mode)

    assert refused(opts).code is StartCode.MODE_REFUSED


def test_a_port_that_mitmproxy_may_choose_is_nobodys(opts: options.Options) -> None:
    opts._options["mode"].set(["regular", "socks5@0", "socks5"])

    assert settings.listen_addresses(opts) == [("", 8080), ("", 1080)]


def test_names_are_served_where_a_mode_says_so(opts: options.Options) -> None:
    opts._options["mode"].set(["transparent@8081", "dns@127.0.0.1:5353", "dns"])

    assert settings.listen_addresses(opts) == [("", 8081), ("127.0.0.1", 5353), ("", 53)]
    assert settings.serves_names(opts) == {("127.0.0.1", 5353), ("", 53)}


def test_forced_options_have_their_values_whatever_was_asked(opts: options.Options, tmp_path: Path) -> None:
    opts.update(connection_strategy="eager", rawtcp=True, onboarding=True, flow_detail=4)
    settings.force(opts, tmp_path)

    assert {name: getattr(opts, name) for name in settings.FORCED} == settings.FORCED
    assert opts.confdir == str(tmp_path)


@pytest.mark.parametrize("name", ["connection_strategy", "mode", "governor_policy", "web_password", "ignore_hosts"])
def test_no_option_changes_while_governor_runs(opts: options.Options, name: str) -> None:
    changed = {"connection_strategy": "lazy", "mode": ["socks5"], "governor_policy": ["other.yaml"],
               "web_password": "x", "ignore_hosts": ["."]}
    frozen = Frozen(opts)
    opts._options[name].set(changed[name])

    with pytest.raises(exceptions.OptionsError, match=f"{name} is fixed"):
        frozen.check({name})


def test_an_option_of_a_later_script_is_its_own_matter(opts: options.Options) -> None:
    frozen = Frozen(opts)
    opts.add_option("others_option", bool, False, "new")
    opts.update(others_option=True)

    frozen.check({"others_option", "listen_port"})


@pytest.mark.parametrize(("text", "place"), [
    ("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535)),
])
def test_the_metrics_address_is_read(opts: options.Options, text: str, place: tuple[str, int]) -> None:
    opts.update(governor_metrics=text, governor_policy=["a.yaml"])
    read = settings.read(opts)

    assert (read.metrics_host, read.metrics_port) == place
    assert (read.policies, read.home) == ((Path("a.yaml"),), None)


@pytest.mark.parametrize("text", ["9464", ":9464", "localhost:", "localhost:x", "localhost:65536", "localhost:-1", ""])
def test_a_metrics_address_that_cannot_be_meant_refuses_the_start(opts: options.Options, text: str) -> None:
    opts.update(governor_metrics=text)

    with pytest.raises(StartRefused, match="OPTION_REFUSED"):
        settings.read(opts)


def test_the_log_learns_which_options_were_set_and_of_a_secret_only_that_it_was(opts: options.Options) -> None:
    opts.update(listen_port=8081, mode=["regular@8082"], web_password="hunter2", governor_pool="redis://u:pw@h.example")

    assert settings.recorded(opts) == {"listen_port": 8081, "mode": ["regular@8082"], "web_password": "(secret)",
                                       "governor_pool": "redis://u:(secret)@h.example"}
