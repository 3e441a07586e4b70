"""The generated part of docs/conformance.md is what the code declares."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_table_of_conformance_is_current() -> None:
    spec = importlib.util.spec_from_file_location("conformance", ROOT / "tools/conformance.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    api = tool.description(None)
    if api is None:
        pytest.skip("no engine-api.yaml beside this checkout")
    document = (ROOT / "docs/conformance.md").read_text()
    assert document == tool.renewed(api, document), "run make docs"
