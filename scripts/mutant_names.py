"""Which mutants scripts/mutants tries, and how many of them the tests saw."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

SEEN = frozenset({1, 3, -24, 24, 36, 37, 152, 255})  # pytest's failure or error, and mutmut's time-outs


def results() -> dict[str, int | None]:
    """The exit status of each mutant; None for one that was not tried."""
    found: dict[str, int | None] = {}
    for file in sorted(Path("mutants/kernel").rglob("*.meta")):
        found |= json.loads(file.read_text())["exit_code_by_key"]
    return found


def choose(size: int, modules: list[str]) -> list[str]:
    """Names of `size` mutants of these modules, always the same; the modules themselves where size is 0."""
    if not size:
        return [f"{module}.*" for module in modules]
    wanted = modules or ["kernel", "kernel.*"]
    names = [name for name in sorted(results()) if any(fnmatchcase(module_of(name), each) for each in wanted)]
    return Random(7).sample(names, min(size, len(names)))


def module_of(name: str) -> str:
    """`kernel.glob` for `kernel.glob.x_joined__mutmut_1`."""
    return name.rpartition(".")[0]


def score() -> str:
    """A line for each module: how many of the mutants that were tried were seen."""
    tried: dict[str, list[bool]] = {}
    for name, status in results().items():
        if status is not None:
            tried.setdefault(module_of(name), []).append(status in SEEN)
    counts = ((module, sum(seen), len(seen)) for module, seen in tried.items())
    return "\n".join(f"{module:32} {seen:4} of {count:4}  {seen / count:4.0%}" for module, seen, count in counts)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["choose", size, *modules]:
            print("\n".join(choose(int(size), modules)))
        case _:
            print(score())
