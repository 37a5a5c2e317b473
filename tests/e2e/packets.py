"""What passes over a network, packet by packet, whoever sent it."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_ETH_P_ALL = 3
_OUTGOING = 4
TCP, UDP = 6, 17
_SYN, _ACK = 0x02, 0x10


@dataclass(frozen=True)
class Packet:
    """One of IPv4 and what of it a test asks for."""

    destination: str
    protocol: int
    port: int
    begins: bool
    content: bytes


@dataclass
class Capture:
    """The packets so far, in their order."""

    packets: list[Packet] = field(default_factory=list)

    def to(self, *addresses: str) -> list[Packet]:
        """Those that went there."""
        return [packet for packet in self.packets if packet.destination in addresses]


@contextlib.contextmanager
def captured(network: contextlib.AbstractContextManager[None], link: str = "lo") -> Iterator[Capture]:
    """All that goes out over a link of the network in which this thread is inside the context given."""
    capture, ended = Capture(), threading.Event()
    with network:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    with tap:
        tap.bind((link, _ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)

        def keep() -> None:
            while (ready := select.select([tap], [], [], 0.1)[0]) or not ended.is_set():
                if ready:
                    content, sender = tap.recvfrom(65536)
                    if sender[2] == _OUTGOING and content[:1] and content[0] >> 4 == 4:
                        capture.packets.append(_parsed(content))

        thread = threading.Thread(target=keep)
        thread.start()
        try:
            yield capture
        finally:
            ended.set()
            thread.join()


def _parsed(packet: bytes) -> Packet:
    after = (packet[0] & 15) * 4
    protocol, destination = packet[9], socket.inet_ntoa(packet[16:20])
    port = struct.unpack_from("!H", packet, after + 2)[0] if protocol in (TCP, UDP) else 0
    if protocol != TCP:
        return Packet(destination, protocol, port, begins=True, content=packet[after + 8:])
    begins = packet[after + 13] & (_SYN | _ACK) == _SYN
    return Packet(destination, protocol, port, begins, packet[after + (packet[after + 12] >> 4) * 4:])
