"""What a Governor has once, however many processes serve: ports, home and CA, metrics port, control socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addons import authority, banner, listeners, settings
from addons.control import ControlServer
from addons.counting_lock import counting
from addons.home import Home, home_folder
from addons.home_lock import home_lock
from addons.metrics import Gauge
from addons.metrics_server import MetricsServer
from addons.own_output import place, say
from addons.port_lock import port_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from addons.control import Handler
    from addons.metrics import Metrics
    from addons.pools.setting import Pool


class Premises:
    """Taken when it is made, or `StartRefused`; given back by `close`."""

    def __init__(self, options: Any, asked: settings.Settings) -> None:
        self._metrics_address = (asked.metrics_host, asked.metrics_port)
        self._reload_wanted = False
        # Before the policy is read: what is asked for from now on is done once the start is over.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._want_reload)
        self._shown = contextlib.ExitStack()
        with contextlib.ExitStack() as taken:
            for host, port in settings.listen_addresses(options):
                datagrams = (host, port) in settings.serves_names(options)
                taken.enter_context(port_lock(host, port, open_already=listeners.tried(host, port),
                                              datagrams=datagrams))
            self.home = Home.open(home_folder(asked.home))
            taken.enter_context(home_lock(self.home.paths))
            self.certificate: Path = authority.ensure(self.home.paths.ca, datetime.now(UTC))
            self._taken = taken.pop_all()

    def keep_accounts(self, pool: Pool) -> None:
        """Have the accounts of the home kept in this ledger; `StartRefused` while others keep them elsewhere."""
        self._taken.enter_context(counting(self.home.paths, pool))

    def show_metrics(self, metrics: Metrics, health: Callable[[], bool],
                     ready: Callable[[], Mapping[str, bool]]) -> int:
        """Open the metrics port; its number. `StartRefused` where it cannot be had."""
        server = MetricsServer(self._metrics_address, metrics, health, ready)
        server.start()
        self._shown.callback(server.stop)
        self._metrics_address = server.address
        return server.address[1]

    def hide_metrics(self) -> None:
        """Close the metrics port."""
        self._shown.close()

    def read_gauges(self, metrics: Metrics) -> None:
        """Have what there is once read at every scrape."""
        paths = self.home.paths
        metrics.read(Gauge.DISK_FREE, lambda: _free_bytes(paths.audit))
        metrics.read(Gauge.CA_EXPIRY, lambda: authority.expiry(paths.ca).timestamp())

    async def open(self, handlers: Mapping[str, Handler], fault: Callable[[str], object],
                   reload: Callable[[str], object]) -> None:
        """Answer on the control socket, and call `reload` at SIGHUP, now too where one came during the start.

        `fault` hears where an answer failed.
        """
        def failed(where: str, error: Exception) -> None:
            fault(where)
            say(f"an answer on the control socket failed: {place(error)}")

        control = ControlServer(self.home.paths.control_sock, handlers, failed)
        await control.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, "SIGHUP")
        if self._reload_wanted:
            reload("SIGHUP")

    def _want_reload(self) -> None:
        self._reload_wanted = True

    def show_banner(
        self, proxies: Sequence[tuple[str, str, int]], observed_until: int | None, workers: int = 1
    ) -> None:
        """Say where everything is. A proxy is its scheme, host and port."""
        banner.show(proxies, self.certificate, self._metrics_address, self.home.paths.folder, observed_until, workers)

    def close(self) -> None:
        """Give everything back."""
        self.hide_metrics()
        self._taken.close()
        with contextlib.suppress(OSError):
            self.home.paths.control_sock.unlink()


def _free_bytes(folder: Path) -> float:
    status = os.statvfs(folder)
    return float(status.f_bavail * status.f_frsize)
