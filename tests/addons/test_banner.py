"""What a start says: where each kind of proxy is, as a client would write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from addons import banner

HTTP, SOCKS = ("http", "0.0.0.0", 8080), ("socks5h", "::1", 1080)


def shown(capsys: pytest.CaptureFixture[str], *proxies: tuple[str, str, int]) -> list[str]:
    banner.show(proxies, Path("ca.pem"), ("127.0.0.1", 9464), Path("home"))
    return capsys.readouterr().out.splitlines()


def test_each_kind_of_proxy_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, SOCKS, HTTP, ("http", "::", 8080), ("socks5h", "127.0.0.1", 1081))

    assert lines[:3] == ["proxy    http://127.0.0.1:8080", "socks5   socks5h://[::1]:1080", "trust    ca.pem"]
    assert lines[-1] == "try      curl --proxy http://127.0.0.1:8080 --cacert ca.pem https://example.org/"


def test_what_is_redirected_is_told_by_its_port_and_tried_without_a_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, ("transparent", "0.0.0.0", 8081), ("transparent", "::", 8081), ("dns", "10.0.0.1", 53))

    assert lines[:3] == ["transparent *:8081", "dns      10.0.0.1:53", "trust    ca.pem"]
    assert lines[-1] == "try      curl --cacert ca.pem https://example.org/"


def test_where_socks5_is_alone_it_is_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, SOCKS)

    assert lines[0] == "socks5   socks5h://[::1]:1080"
    assert lines[-1].startswith("try      curl --proxy socks5h://[::1]:1080 ")
