"""From a client's JSON to a model, as leniently as Go reads it.

Names match without regard to case, names that are not known are passed over, and null is "not said".
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import msgspec
from msgspec import inspect

from berth.errors import InvalidArgument

Model = TypeVar("Model")

INT64 = range(-(1 << 63), 1 << 63)


def decode(data: bytes, type_: type[Model]) -> Model:
    """Decode a client's JSON; InvalidArgument names the place that is wrong."""
    try:
        value = msgspec.json.decode(data or b"{}")
        return msgspec.convert(_adapted(value, _shapes.of(type_)), type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None


class _Shapes:
    """What models look like, looked up once each."""

    def __init__(self) -> None:
        self._known: dict[object, inspect.Type] = {}

    def of(self, type_: object) -> inspect.Type:
        """Return the shape of a type."""
        if type_ not in self._known:
            self._known[type_] = inspect.type_info(type_)
        return self._known[type_]


_shapes = _Shapes()


@cache
def _fields(cls: type) -> tuple[dict[str, inspect.Type], dict[str, str]]:
    """Return the shapes of a struct's fields by name, and their names by the name in lower case."""
    shape = _shapes.of(cls)
    assert isinstance(shape, inspect.StructType)
    shapes = {field.encode_name: field.type for field in shape.fields}
    return shapes, {name.lower(): name for name in shapes}


def _adapted(value: object, shape: inspect.Type | None) -> object:
    """Return the value with the names its model has, and without members that are null."""
    if isinstance(value, (str, bool)):  # nearly all
        return value
    if isinstance(value, dict):
        return _adapted_members(value, shape)
    if isinstance(value, list):
        inner = _part(shape, inspect.ListType)
        item = inner.item_type if isinstance(inner, inspect.ListType) else None
        return [_adapted(part, item) for part in value]
    if isinstance(value, int) and value not in INT64:
        raise InvalidArgument(f"invalid JSON: number {value} does not fit 64 bits")
    return value


def _adapted_members(value: dict[str, object], shape: inspect.Type | None) -> dict[str, object]:
    said = {name: part for name, part in value.items() if part is not None}
    struct = _part(shape, inspect.StructType)
    if not isinstance(struct, inspect.StructType):
        mapping = _part(shape, inspect.DictType)
        inner = mapping.value_type if isinstance(mapping, inspect.DictType) else None
        return {name: _adapted(part, inner) for name, part in said.items()}
    shapes, names = _fields(struct.cls)
    found: dict[str, object] = {}
    for name, part in said.items():
        known = name if name in shapes else names.get(name.lower())
        if known is not None:
            found[known] = _adapted(part, shapes[known])
    return found


def _part(shape: inspect.Type | None, kind: type[inspect.Type]) -> inspect.Type | None:
    """Return the member of a union that is of a kind; a shape that is none stands for itself."""
    if isinstance(shape, inspect.UnionType):
        return next((part for part in shape.types if isinstance(part, kind)), None)
    return shape if isinstance(shape, kind) else None
