"""Rules about the sources that no linter has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LARGE = {"src/berth/runtime/seccomp/tables.py"}  # written by a tool
MAX_LINES = 430
CHECKS = ("raises", "warns", "verify", "out")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_has_a_docstring_and_is_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    if str(path.relative_to(ROOT)) not in LARGE:
        assert text.count("\n") <= MAX_LINES


def test_every_test_asserts_something():
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            if is_test and not any(map(asserts, ast.walk(node))):
                silent.append(f"{path.name}: {node.name}")
    assert not silent


def asserts(node):
    """Say whether it asserts, or calls what does; a `try` is there to let one kind of error pass only."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        return name.startswith(("assert", "check", "expect", "test_")) or name in CHECKS
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Try) and bool(node.handlers))
