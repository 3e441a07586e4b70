"""The Engine API's own description, when it lies beside the checkout: responses against its schemas."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

NAME = "engine-api.yaml"
HERE = Path(__file__).resolve()


# Docker's answers have null here, whatever the description says.
NULLS_OF_DOCKER = ("MemorySwappiness",)


def _resources(document: dict[str, object]) -> dict[str, dict[str, object]]:
    return document["definitions"]["Resources"]["properties"]  # type: ignore[index]


@functools.cache
def _specification() -> dict[str, object] | None:
    import yaml

    for parent in HERE.parents:
        path = parent / "shared" / NAME
        if path.exists():
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            document = yaml.load(path.read_text(), Loader=loader)
            _allow_nulls(document)
            for name in NULLS_OF_DOCKER:
                _resources(document)[name]["type"] = ["integer", "null"]
            return document
    return None


def _allow_nulls(node: object) -> None:
    """Let lists, maps and structures be null, as Go's encoder writes empty ones, and what is nullable."""
    if isinstance(node, list):
        for item in node:
            _allow_nulls(item)
    if not isinstance(node, dict):
        return
    for item in node.values():
        _allow_nulls(item)
    kind = node.get("type")
    if isinstance(kind, str) and (kind in ("array", "object") or node.get("x-nullable")):
        node["type"] = [kind, "null"]
        if "enum" in node:
            node["enum"] = [*node["enum"], None]
    for name, item in list((node.get("properties") or {}).items()):
        if isinstance(item, dict) and "$ref" in item:
            node["properties"][name] = {"anyOf": [{"$ref": item["$ref"]}, {"type": "null"}]}


def check(document: object, method: str, path: str, status: int = 200) -> None:
    """Assert that a response is what the description promises for an operation."""
    import jsonschema

    whole = _specification()
    if whole is None:
        pytest.skip(f"no {NAME} beside this checkout")
    operation = whole["paths"][path][method.lower()]  # type: ignore[index]
    schema = operation["responses"][status]["schema"]
    _assert_valid(
        jsonschema.Draft4Validator({**schema, "definitions": whole["definitions"]}), document
    )


def check_error(document: object) -> None:
    """Assert that a refusal is an error document."""
    import jsonschema

    whole = _specification()
    if whole is None:
        pytest.skip(f"no {NAME} beside this checkout")
    schema = {"$ref": "#/definitions/ErrorResponse", "definitions": whole["definitions"]}
    _assert_valid(jsonschema.Draft4Validator(schema), document)


def _assert_valid(validator: object, document: object) -> None:
    found = list(validator.iter_errors(document))  # type: ignore[attr-defined]
    errors = [part for error in found for part in (error, *(error.context or ()))]
    assert not errors, "\n".join(
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors
    )


def _known() -> dict[str, object]:
    document = _specification()
    if document is None:
        pytest.skip(f"needs the file {NAME}")
    return document


def paths() -> dict[str, dict[str, dict[str, object]]]:
    """Return every operation, by path and method."""
    return _known()["paths"]  # type: ignore[return-value]


def _resolved(schema: dict[str, object]) -> dict[str, object]:
    while "$ref" in schema:
        section, name = str(schema["$ref"]).removeprefix("#/").split("/")
        schema = _known()[section][name]  # type: ignore[index]
    return schema


def parameters(operation: dict[str, object]) -> list[dict[str, object]]:
    """Return the parameters of an operation."""
    return [_resolved(parameter) for parameter in operation.get("parameters", [])]  # type: ignore[attr-defined]


def properties(schema: dict[str, object]) -> dict[str, dict[str, object]]:
    """Return the fields of an object, each resolved; none of anything else."""
    schema = _resolved(schema)
    found: dict[str, dict[str, object]] = {}
    for part in schema.get("allOf", []):  # type: ignore[attr-defined]
        found |= properties(part)
    own = schema.get("properties", {})
    return found | {name: _resolved(field) for name, field in own.items()}  # type: ignore[attr-defined]
