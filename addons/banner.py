"""What a start prints once the ports are open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def show(proxies: Sequence[tuple[str, int]], certificate: Path, metrics: tuple[str, int], home: Path) -> None:
    """Print where everything is, and one line to try."""
    host, port = _reachable(proxies)
    lines = [
        f"proxy    http://{host}:{port}",
        f"trust    {certificate}",
        f"metrics  http://{_bracketed(metrics[0])}:{metrics[1]}/metrics",
        f"home     {home}",
        f"try      curl --proxy http://{host}:{port} --cacert {certificate} https://example.org/",
    ]
    print("\n".join(lines), flush=True)


def _reachable(proxies: Sequence[tuple[str, int]]) -> tuple[str, int]:
    host, port = proxies[0]
    return ("127.0.0.1" if host in ("0.0.0.0", "::", "") else _bracketed(host)), port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
