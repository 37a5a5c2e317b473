"""The policy of the measurement: 10,000 rules of the usual kinds, one of which lets the origin through."""

from __future__ import annotations

from collections.abc import Iterable

RULES = 10_000


def policy(addresses: Iterable[str], ports: Iterable[int], rules: int = RULES) -> str:
    """A policy document that allows `localhost` at its own addresses and ports, among `rules` rules."""
    ranges = ", ".join(f'"{address}"' if ":" in address else "127.0.0.0/8" for address in addresses)
    lines = [
        "version: 1",
        "rules:",
        "  - allow: origin",
        "    to: localhost",
        f"    address: [{ranges}]",
        "    schemes: [http, https]",
        f"    ports: [{', '.join(map(str, ports))}]",
        "    methods: reads",
        "  - allow: models",
        "    to: localhost",
        f"    address: [{ranges}]",
        "    schemes: [http, https]",
        f"    ports: [{', '.join(map(str, ports))}]",
        '    llm: {models: "*"}',
    ]
    for number in range(2, rules):
        lines += _rule(number)
    return "\n".join(lines) + "\n"


def _rule(number: int) -> list[str]:
    team = number % 97
    match number % 5:
        case 0:
            return [f"  - deny: rule-{number}", f"    to: .s{number}.team{team}.example.org"]
        case 1:
            return [f"  - allow: rule-{number}", f'    to: "*.s{number}.team{team}.example.org"', "    methods: reads"]
        case 2:
            return [f"  - allow: rule-{number}", f"    to: s{number}.team{team}.example.org", "    methods: any",
                    f'    paths: ["/v1/team{team}/**", "/status"]']
        case 3:
            return [f"  - allow: rule-{number}", f"    from: agent-{team}-*", "    methods: reads",
                    f"    to: s{number}.team{team}.example.org"]
        case _:
            return [f"  - allow: rule-{number}", f"    to: s{number}.team{team}.example.org", "    methods: reads"]
