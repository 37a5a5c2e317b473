"""The gate: whatever other addons, operators and faults do, no request leaves but the one that was judged."""

from __future__ import annotations

import asyncio
from typing import Any

from mitmproxy import http

from addons.home import Home
from tests.addons.inside import inside, raw_origin


class Keeping:
    """An addon that keeps the flows it saw, as mitmweb does."""

    def __init__(self) -> None:
        self.flows: list[http.HTTPFlow] = []

    def request(self, flow: http.HTTPFlow) -> None:
        self.flows.append(flow)


async def test_a_request_that_is_edited_while_its_name_is_looked_up_does_not_leave(home: Home) -> None:
    seen = Keeping()
    async with raw_origin() as origin, inside(home, seen) as place:
        look_up = place.resolver._ask

        async def slow(*arguments: Any, **hints: Any) -> Any:
            await asyncio.sleep(0.05)
            seen.flows[0].request.path = "/denied/secret"
            return await look_up(*arguments, **hints)

        place.resolver._ask = slow
        answer = await place.get(f"{origin.url}/wanted")

        assert b"Governor: EDITED" in answer
        assert origin.received == []
        assert (await place.wait_for("outcome"))[0]["result"] == "not_sent"
