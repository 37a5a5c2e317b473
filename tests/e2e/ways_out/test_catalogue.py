"""The list of ways out is whole: every number has its tests, every test its place in the table."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parent
# The adversarial cases that this project set out with; those it found itself come after them.
SET_OUT_WITH = set(range(1, 58))


def marked_tests() -> dict[int, set[str]]:
    """The tests marked with each number, as FILE::TEST."""
    found: dict[int, set[str]] = defaultdict(set)
    for file in FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                for number in numbers_of(node):
                    found[number].add(f"{file.name}::{node.name}")
    return dict(found)


def numbers_of(test: ast.FunctionDef) -> list[int]:
    return [argument.value for mark in test.decorator_list
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.case"
            for argument in mark.args if isinstance(argument, ast.Constant) and isinstance(argument.value, int)]


def listed_tests() -> dict[int, set[str]]:
    """What the rows of README.md name, by the number at the front of each."""
    rows = re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == len({number for number, _ in rows}), "a number stands twice in README.md"
    return {int(number): set(re.findall(r"`([^`]+)`", tests)) for number, tests in rows}


def test_every_way_out_has_a_test() -> None:
    numbers = set(marked_tests())

    assert SET_OUT_WITH - numbers == set()
    assert numbers == set(range(1, max(numbers) + 1))


def test_the_table_names_the_tests_of_every_way_out() -> None:
    assert listed_tests() == marked_tests()


def test_every_test_here_stands_for_a_way_out() -> None:
    listed = set().union(*marked_tests().values())
    all_tests = {f"{file.name}::{node.name}" for file in FOLDER.glob("test_*.py") if file != Path(__file__)
                 for node in ast.parse(file.read_text()).body
                 if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}

    assert all_tests == listed
