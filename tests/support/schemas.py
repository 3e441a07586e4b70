"""The Engine API's own description, when it lies beside the checkout: responses against its schemas."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "engine-api.yaml"
HERE = Path(__file__).resolve()


VERSION = re.compile(r"^/v\d+\.\d+(?=/)")
# Answers that are many documents, or one for each moment.
STREAMS = {("/events", 200), ("/containers/{id}/stats", 200), ("/images/create", 200)}


# Docker's answers have null here, whatever the description says.
def _nulls_of_docker(whole: dict[str, object]) -> Iterator[dict[str, object]]:
    yield whole["definitions"]["Resources"]["properties"]["MemorySwappiness"]  # type: ignore[index]
    responses = whole["paths"]["/exec/{id}/json"]["get"]["responses"]  # type: ignore[index]
    yield responses[200]["schema"]["properties"]["ExitCode"]


@functools.cache
def _specification() -> dict[str, object] | None:
    import yaml

    for parent in HERE.parents:
        path = parent / "shared" / NAME
        if path.exists():
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            document = yaml.load(path.read_text(), Loader=loader)
            _allow_nulls(document)
            for field in _nulls_of_docker(document):
                field["type"] = ["integer", "null"]
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


def relaxed() -> dict[str, object] | None:
    """Return a copy of the description, with the nulls that Docker's answers have; None where it is not."""
    return copy.deepcopy(_specification())


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


def check_answer(method: str, target: str, status: int, document: object) -> None:
    """Assert that any answer of the API is as described; what the description does not speak of passes."""
    whole = _specification()
    if whole is None:
        return
    path = VERSION.sub("", target.partition("?")[0])
    found = _operation(method.lower(), path)
    if status >= 400:
        _assert_valid(_validator("#/definitions/ErrorResponse"), document)
    elif found is not None:
        template, operation = found
        schema = operation["responses"].get(status, {}).get("schema")  # type: ignore[attr-defined]
        if schema is not None and (template, status) not in STREAMS:
            _assert_valid(_validator(template, method.lower(), status), document)


@functools.cache
def _operation(method: str, path: str) -> tuple[str, dict[str, object]] | None:
    """Return the template that a path is of, and what is described of it; a fixed path counts more."""
    paths: dict[str, dict[str, dict[str, object]]] = _specification()["paths"]  # type: ignore[index,assignment]
    for template in (path, *paths):
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^?]+", re.escape(template))
        if template in paths and method in paths[template] and re.fullmatch(pattern, path):
            return template, paths[template][method]
    return None


@functools.cache
def _validator(*place: object) -> object:
    import jsonschema

    whole = _specification()
    assert whole is not None
    if len(place) == 1:
        schema = {"$ref": place[0]}
    else:
        path, method, status = place
        schema = whole["paths"][path][method]["responses"][status]["schema"]  # type: ignore[index]
    return jsonschema.Draft4Validator({**schema, "definitions": whole["definitions"]})


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
