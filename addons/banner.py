"""What a start prints once the ports are open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernel.hours import told

_WORDS = {"http": "proxy", "socks5h": "socks5"}
"""Of each scheme that a client writes, what that proxy is called here."""
_EVERYWHERE = ("0.0.0.0", "::", "")


def show(proxies: Sequence[tuple[str, str, int]], certificate: Path, metrics: tuple[str, int], home: Path,
         observed_until: int | None = None, workers: int = 1) -> None:
    """Print where everything is, and one line to try. A proxy is its scheme, host and port; where no client is told of
    it, but has its packets redirected to it, mitmproxy's name of the mode stands for the scheme.

    `observed_until` is the end of the policy's trial, in seconds since 1970; `workers` are told of from two on.
    """
    # One line for each kind: mitmproxy listens on a wildcard once for each family.
    urls = {scheme: f"{scheme}://{_reachable(host)}:{port}" for scheme, host, port in reversed(proxies)
            if scheme in _WORDS}
    shown = [f"{_WORDS[scheme]:<8} {url}" for scheme, url in sorted(urls.items())]
    redirected = {mode: f"{'*' if host in _EVERYWHERE else _bracketed(host)}:{port}"
                  for mode, host, port in reversed(proxies) if mode not in _WORDS}
    shown += [f"{mode:<8} {place}" for mode, place in sorted(redirected.items(), reverse=True)]
    proxy = f"--proxy {min(urls.values())} " if urls else ""
    trial = [] if observed_until is None else [f"OBSERVE  what the rules refuse passes until {told(observed_until)}"]
    lines = [
        *trial,
        *shown,
        *([f"workers  {workers}"] if workers > 1 else []),
        f"trust    {certificate}",
        f"metrics  http://{_bracketed(metrics[0])}:{metrics[1]}/metrics",
        f"home     {home}",
        f"try      curl {proxy}--cacert {certificate} https://example.org/",
    ]
    print("\n".join(lines), flush=True)


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in _EVERYWHERE else _bracketed(host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
