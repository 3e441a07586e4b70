"""Odd Dockerfiles, and what is read of each: `odd/NAME.Dockerfile` and `odd/NAME.json`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from berth.dockerfile import stages

FOLDER = Path(__file__).parent / "odd"


def shown(value):
    """Return what of a value says something."""
    if isinstance(value, dict):
        named = {key: inner for key, inner in value.items() if key != "line"}
        return {key: shown(inner) for key, inner in named.items() if inner or inner is False}
    return [shown(inner) for inner in value] if isinstance(value, list | tuple) else value


def read(text):
    found = stages.read(text)
    return {
        "escape": found.escape,
        "globals": [shown(asdict(step)) for step in found.globals],
        "stages": [
            {"head": shown(asdict(stage.head)), "steps": [shown(asdict(s)) for s in stage.steps]}
            for stage in found.stages
        ],
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.Dockerfile")))
def test_an_odd_dockerfile_is_read_as_before(name):
    found = read((FOLDER / f"{name}.Dockerfile").read_text())
    assert found == json.loads((FOLDER / f"{name}.json").read_text())
