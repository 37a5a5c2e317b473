"""A connection to a Redis or Valkey server that runs scripts: the only redis client. One try, and short time-outs."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from addons.pools.protocol import LedgerError, NotJoined

try:
    from redis.backoff import NoBackoff
    from redis.connection import Connection, parse_url
    from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError
    from redis.retry import Retry
except ImportError as missing:
    raise LedgerError("a ledger in Redis needs the client: pip install 'governor-proxy[redis]'") from missing

if TYPE_CHECKING:
    from redis.connection import AbstractConnection

SECONDS = 0.1
"""How long a call waits for the server to take a connection, and for its answer, each."""
_SETTINGS = {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_TAG = "{governor}:head"


@dataclass(frozen=True, slots=True)
class Script:
    """A script and its digest, by which a server remembers it."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Script:
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Server:
    """The server at a URL. It is connected when it is first asked, and again after a fault.

    `LedgerError` where it does not answer in time: what was asked may have been done all the same.
    """

    def __init__(self, url: str) -> None:
        self.place, self._settings = _read(url)
        self._moved: dict[str, Any] = {}
        self._connection: AbstractConnection | None = None
        self.run_id = ""

    def run(self, script: Script, *arguments: str, seconds: float = SECONDS) -> Any:
        """What a script answers. The server's id comes before its arguments: another one after each of its starts."""
        try:
            try:
                return self._run(script, arguments, seconds)
            except MovedError as moved:
                # A node of a cluster that has the ledger no more, or never had.
                self.close()
                self._moved = {"host": moved.host, "port": moved.port}
                return self._run(script, arguments, seconds)
        except ResponseError as refused:
            raise self._refusal(str(refused)) from None
        except (RedisError, OSError) as fault:
            self.close()
            self._moved = {}
            raise LedgerError(f"{self.place}: the ledger does not answer: {fault}") from None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _run(self, script: Script, arguments: tuple[str, ...], seconds: float) -> Any:
        connection = self._connected()
        try:
            return self._sent(connection, seconds, "EVALSHA", script.digest, arguments)
        except NoScriptError:
            return self._sent(connection, seconds, "EVAL", script.text, arguments)

    def _sent(
        self, connection: AbstractConnection, seconds: float, command: str, script: str, arguments: tuple[str, ...]
    ) -> Any:
        connection.send_command(command, script, 1, _TAG, self.run_id, *arguments)
        return connection.read_response(timeout=seconds)

    def _connected(self) -> AbstractConnection:
        if self._connection is None:
            settings = {**self._settings, **self._moved}
            connection: AbstractConnection = settings.pop("connection_class", Connection)(**settings)
            try:
                connection.connect()
                self.run_id = self._identity(connection)
            except BaseException:
                connection.disconnect()
                raise
            self._connection = connection
        return self._connection

    def _identity(self, connection: AbstractConnection) -> str:
        """The id that the server made at its start; `LedgerError` where it may forget what it has no room for."""
        said = _info(connection, "server") | _info(connection, "memory")
        if said.get("maxmemory", "0") != "0" and said.get("maxmemory_policy") != "noeviction":
            raise LedgerError(f"{self.place}: this server drops keys when its memory is full; "
                              "set maxmemory-policy noeviction")
        return said["run_id"]

    def _refusal(self, text: str) -> LedgerError:
        code, _, rest = text.partition(" ")
        if code == "NOTJOINED":
            return NotJoined(rest)
        if code == "JOINED":
            return LedgerError(rest)
        # It may have become a replica: the name may lead to another by now.
        self.close()
        return LedgerError(f"{self.place}: the server refuses: {text}")


def _info(connection: AbstractConnection, section: str) -> dict[str, str]:
    connection.send_command("INFO", section)
    answer = connection.read_response()
    return dict(re.findall(r"^(\w+):(.*?)\r?$", answer.decode(), re.MULTILINE))


def _read(url: str) -> tuple[str, dict[str, Any]]:
    """The URL without user, password and settings, and what it says of the connection."""
    scheme, _, rest = url.partition("://")
    # A password with characters that end a host would else be taken for one, and shown.
    shown, _, query = rest.rpartition("@")[2].partition("?")
    place = f"{scheme}://{shown}"
    unknown = sorted(parse_qs(query, keep_blank_values=True).keys() - _SETTINGS)
    if unknown:
        raise LedgerError(f"{place}: unknown setting {unknown[0]!r} (known: {', '.join(sorted(_SETTINGS))})")
    try:
        said = parse_url(url)
    except ValueError:
        problem = "no address of a server; in a password write / ? # @ : as %2F %3F %23 %40 %3A"
        raise LedgerError(f"{place}: {problem}") from None
    if scheme == "rediss":
        said |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    said |= {"protocol": 2, "retry": Retry(NoBackoff(), 0), "socket_timeout": SECONDS}
    if scheme != "unix":
        said["socket_connect_timeout"] = SECONDS
    return place, said
