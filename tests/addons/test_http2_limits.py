"""Many small DATA frames cost what a few large ones cost, and say the same."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events

from addons.http2_limits import BoundedConnection


def pair() -> tuple[h2.connection.H2Connection, BoundedConnection]:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    server = BoundedConnection(h2.config.H2Configuration(client_side=False, header_encoding=False))
    client.initiate_connection()
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    for stream_id in (1, 3):
        client.send_headers(stream_id, [
            (":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")])
    server.receive_data(client.data_to_send())
    return client, server


def bodies(events: list[h2.events.Event]) -> list[tuple[int | None, bytes, int | None]]:
    return [(event.stream_id, event.data, event.flow_controlled_length) for event in events
            if isinstance(event, h2.events.DataReceived)]


def test_tiny_pieces_of_a_body_that_follow_each_other_are_one() -> None:
    client, server = pair()
    for _ in range(3000):
        client.send_data(1, b"x", pad_length=2)
    client.send_data(1, b"y", end_stream=True)

    events = server.receive_data(client.data_to_send())

    # Padding counts against the window, and so does the byte that says how much there is of it.
    assert bodies(events) == [(1, b"x" * 3000 + b"y", 3000 * 4 + 1)]
    assert [type(event) for event in events] == [h2.events.DataReceived, h2.events.StreamEnded]
    assert events[0].stream_ended is events[1]


def test_pieces_of_two_bodies_keep_their_order() -> None:
    client, server = pair()
    for stream_id, piece in ((1, b"a"), (1, b"b"), (3, b"c"), (1, b"d"), (1, b""), (1, b"e")):
        client.send_data(stream_id, piece)

    assert bodies(server.receive_data(client.data_to_send())) == [(1, b"ab", 2), (3, b"c", 1), (1, b"de", 2)]
