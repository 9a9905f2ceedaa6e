"""The table of docs/security.md names tests that exist, and no attack is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\| (\d+) \| (.+?) \|\s*(.*?)\s*\|\s*(.*?)\s*\|")
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> dict[int, tuple[str, str]]:
    """The tests and the outcome of each numbered row."""
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    found = [match for line in lines if (match := ROW.fullmatch(line))]
    return {int(match[1]): (match[3], match[4]) for match in found}


def test_every_numbered_attack_has_a_row():
    assert list(rows()) == list(range(1, 65))


def test_every_row_names_what_holds_it_and_what_happens():
    for number, (tests, outcome) in rows().items():
        assert any(path.startswith("hostile/") for path, _ in NAMED.findall(tests)), number
        assert outcome, number


def test_every_test_that_is_named_exists():
    for number, (tests, _) in rows().items():
        assert tests.count("::") == len(NAMED.findall(tests)), (number, tests)
        for path, name in NAMED.findall(tests):
            tree = ast.parse((ROOT / "tests" / path).read_text())
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
            assert name in names, (number, path, name)
