"""The ports that a policy's grants name."""

from __future__ import annotations

import pytest

from kernel.policy import PortRange
from kernel.ports import granted
from tests.addons.policies import compiled


@pytest.mark.parametrize(("rules", "spans"), [
    ("- {allow: a, to: x.example.org, methods: any}", [(443, 443)]),
    ("- {allow: a, to: x.example.org, methods: any, schemes: [http, https]}", [(80, 80), (443, 443)]),
    ("- {allow: a, to: x.example.org, methods: any, ports: [8080, 9000-9010]}", [(8080, 8080), (9000, 9010)]),
    ("- {allow: a, to: x.example.org, methods: any, ports: [1-10, 5-20, 21]}", [(1, 21)]),
    ('- {allow: a, to: "https://x.example.org:8443/a/**", methods: any}', [(8443, 8443)]),
    ("- {deny: a, to: x.example.org, ports: [25]}", []),
    ("- {throttle: a, to: x.example.org, methods: any, ports: [8081], rate: 1/minute}", [(8081, 8081)]),
], ids=["its scheme's own", "two schemes", "written", "overlapping and adjoining", "of a URL", "of a refusal",
        "of a throttle"])
def test_only_what_a_grant_names_is_told_in_order_and_once(rules, spans):
    policy = compiled(f"version: 1\nrules:\n{rules}\n").policy

    assert granted(policy) == tuple(PortRange(*span) for span in spans)
