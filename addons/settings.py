"""Governor's settings: the mitmproxy options it adds, the ones it forces, and the allow-list of all the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmproxy import exceptions, optmanager
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.mode_specs import DnsMode, ProxyMode, RegularMode, Socks5Mode, TransparentMode

from addons.errors import StartCode, StartRefused
from addons.pools.setting import Pool, without_secrets
from addons.pools.setting import read as read_pool
from kernel.canonical import Value
from kernel.trial import Mode

METRICS_ADDRESS = "127.0.0.1:9464"
_GOVERNED_MODE = re.compile(r"(?:regular|socks5|transparent|dns)(?:@(?:[^@]+:)?[0-9]+)?", re.ASCII)

# An unlisted option must keep its default: mitmproxy has options that skip interception, rewrite requests after the
# verdict or write secrets to disk, and a later version may add more.
FREE = frozenset({
    "listen_host", "listen_port", "mode", "scripts", "ssl_verify_upstream_trusted_ca",
    "ssl_verify_upstream_trusted_confdir", "termlog_verbosity",
})
FREE_PREFIXES = ("web_", "governor_")
FORCED: dict[str, Any] = {"connection_strategy": "lazy", "rawtcp": False, "onboarding": False, "flow_detail": 0}
# Set by Governor itself (the CA lives in the home), so that a value of the user's would be lost silently.
OWN = frozenset({"confdir"})
_SECRET = frozenset({"web_password"})
_POOL = "governor_pool"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a start was asked for, read once. `policies` is empty where the home's or the shipped policy is meant.

    `strict` enforces even where the policy says `mode: observe`. `pool` is None where none is named.
    """

    policies: tuple[Path, ...]
    home: str | None
    metrics_host: str
    metrics_port: int
    strict: bool
    pool: Pool | None = None


def add_options(loader: Loader) -> None:
    """Declare `governor_*` to mitmproxy."""
    loader.add_option("governor_policy", Sequence[str], [],
                      "The policy file, or its tiers. Default: policy.yaml in the home, else the one Governor ships.")
    loader.add_option("governor_home", str, "",
                      "Where keys, log and CA live. Default: $GOVERNOR_HOME, else the user's state folder.")
    loader.add_option("governor_mode", str, "",
                      "enforce: refuse what the policy refuses, even where it says mode: observe.")
    loader.add_option("governor_metrics", str, METRICS_ADDRESS,
                      "HOST:PORT of /metrics, /healthz and /readyz. Port 0 takes a free one.")
    loader.add_option(_POOL, str, "",
                      "Where budgets are kept: memory: in this process, sqlite:PATH for the workers of a host,"
                      " redis://HOST for many hosts. Default: $GOVERNOR_POOL, where ps shows no password of it;"
                      " else memory:, with --workers sqlite:pool.db in the home.")


def declare(loader: Loader) -> None:
    """Declare `governor_*` and take the values that wait for them. Raises `StartRefused` on one that cannot be read."""
    add_options(loader)
    try:
        # mitmproxy does this after a script's load; where a value cannot be read it serves on, without the script.
        loader.master.options.process_deferred()
    except exceptions.OptionsError as problem:
        raise StartRefused(StartCode.OPTION_REFUSED, str(problem)) from problem


def read(options: optmanager.OptManager) -> Settings:
    """The settings of this start. Raises `StartRefused` on a value that cannot be meant."""
    if options.governor_mode not in ("", Mode.ENFORCE):
        raise StartRefused(StartCode.OPTION_REFUSED,
                           f"governor_mode={options.governor_mode}: only a policy can say observe, with until:; "
                           "write enforce, or leave it out")
    host, _, port = options.governor_metrics.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise StartRefused(StartCode.OPTION_REFUSED,
                           f"governor_metrics={options.governor_metrics} is not HOST:PORT; write 127.0.0.1:9464")
    return Settings(tuple(Path(name) for name in options.governor_policy), options.governor_home or None,
                    host.strip("[]"), int(port), bool(options.governor_mode), read_pool(options.governor_pool))


def check_at_start(options: optmanager.OptManager) -> None:
    """Refuse every option that is neither free nor forced and has not its default; refuse untested modes."""
    for name, option in options.items():
        if name in FREE or name in FORCED or name.startswith(FREE_PREFIXES):
            continue
        if option.has_changed():
            raise StartRefused(StartCode.OPTION_REFUSED,
                               f"{name} is not known to be harmless under Governor; leave it at its default")
    for mode in options.mode:
        if not _is_governed(mode):
            text = f"mode {mode} is not governed; use regular, socks5, transparent or dns"
            raise StartRefused(StartCode.MODE_REFUSED, text)


def _is_governed(mode: str) -> bool:
    if not _GOVERNED_MODE.fullmatch(mode):
        return False
    try:
        return isinstance(ProxyMode.parse(mode), (RegularMode, Socks5Mode, TransparentMode, DnsMode))
    except ValueError:
        return False


def listen_addresses(options: optmanager.OptManager) -> list[tuple[str, int]]:
    """Where mitmproxy is going to listen. An empty host is every address; a port that it may choose is left out."""
    modes = [ProxyMode.parse(text) for text in options.mode]
    places = [(mode.listen_host(options.listen_host), mode.listen_port(options.listen_port)) for mode in modes]
    return [(host, port) for host, port in places if port]


def serves_names(options: optmanager.OptManager) -> frozenset[tuple[str, int]]:
    """Those of the places at which names are asked for, over UDP too."""
    modes = [mode for text in options.mode if isinstance(mode := ProxyMode.parse(text), DnsMode)]
    return frozenset((mode.listen_host(options.listen_host), mode.listen_port(options.listen_port) or 0)
                     for mode in modes)


def force(options: optmanager.OptManager, confdir: Path) -> None:
    """Give the forced options their values, whatever the command line says, and point mitmproxy at the home's CA."""
    # mitmweb has no dumper and so no `flow_detail`.
    options.update(confdir=str(confdir), **{name: value for name, value in FORCED.items() if name in options})


def recorded(options: optmanager.OptManager) -> dict[str, Value]:
    """The options that were set, as the log names them; of a secret only that it was set."""
    return {name: _told(name, option.current()) for name, option in options.items() if option.has_changed()}


def _told(name: str, value: Any) -> Value:
    if name in _SECRET:
        return "(secret)"
    return without_secrets(value) if name == _POOL else _plain(value)


def _plain(value: Any) -> Value:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, bool, int)) or value is None else str(value)


class Frozen:
    """The values of all options at the end of the start. Every later change is refused and rolled back by mitmproxy."""

    def __init__(self, options: optmanager.OptManager) -> None:
        self._options = options
        self._values = {name: option.current() for name, option in options.items()}

    def check(self, updated: Iterable[str]) -> None:
        """Raise `OptionsError` when one of the updated options differs from its frozen value."""
        for name in updated:
            # Options that a later script declares are new here; they govern that script alone.
            if name in self._values and getattr(self._options, name) != self._values[name] and name != "scripts":
                raise exceptions.OptionsError(f"{name} is fixed while Governor runs; restart with the value you want")
