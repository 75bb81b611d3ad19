"""Functions that one sees at once, modules that one reads in one sitting."""

import ast
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files

MODULE_LINES = 300
FUNCTION_LINES = 40
# A suite is a list of cases, a benchmark one script, and a scenario is read from its top to its end.
TESTS = ("tests/", "benchmarks/")
TEST_MODULE_LINES = 400
TEST_FUNCTION_LINES = 60

# What is longer, with its reason. An entry that is no longer needed fails the test.
LONG_MODULES: dict[str, str] = {
    "tests/console/test_page.py": "one page, one suite: a case for each thing that its reader sees and does",
}
LONG_FUNCTIONS: dict[str, str] = {}


# Migrations grow by being generated.
FILES = [str(path) for path in files("*.py") if "versions" not in path.parts]


def _functions(name: str) -> list[tuple[str, int]]:
    return [
        (f"{name}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def test_modules_are_read_in_one_sitting() -> None:
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in FILES}
    long = {name: n for name, n in lines.items() if n > (TEST_MODULE_LINES if name.startswith(TESTS) else MODULE_LINES)}
    assert {name: n for name, n in long.items() if name not in LONG_MODULES} == {}
    assert sorted(set(LONG_MODULES) - set(long)) == [], "exemptions that nobody needs"


def test_functions_are_seen_at_once() -> None:
    lines = {where: n for name in FILES for where, n in _functions(name)}
    long = {where: n for where, n in lines.items() if n > (TEST_FUNCTION_LINES if where.startswith(TESTS) else FUNCTION_LINES)}
    assert {where: n for where, n in long.items() if where not in LONG_FUNCTIONS} == {}
    assert sorted(set(LONG_FUNCTIONS) - set(long)) == [], "exemptions that nobody needs"


@pytest.mark.parametrize("word", ["utils", "helpers", "misc", "common"])
def test_no_module_without_a_subject(word: str) -> None:
    assert [name for name in FILES if word in Path(name).with_suffix("").parts] == []
