"""Docker's filters: values of one filter are alternatives, filters are conditions; labels always are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from berth.engine import status
from berth.engine.networking import parse_port
from berth.errors import InvalidArgument
from berth.images.catalog import flag
from berth.oci import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from berth.engine.events import Event
    from berth.engine.models import ContainerRecord

    Filters = Mapping[str, Sequence[str]]
    Find = Callable[[str], ContainerRecord]

HEALTH_STATES = ("starting", "healthy", "unhealthy", "none")


def has_labels(labels: Mapping[str, str] | None, wanted: Sequence[str]) -> bool:
    """Say whether all of ``wanted`` ("name" or "name=value") are there."""
    known = labels or {}
    for text in wanted:
        name, equals, value = text.partition("=")
        if name not in known or (equals and known[name] != value):
            return False
    return True


def matches(pattern: str, text: str) -> bool:
    """Say whether a name is meant: by a regular expression, or, if it is none, by a part of it."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text


class ContainerFilter:
    """The filters of a list of containers; InvalidArgument for one that Docker does not know."""

    def __init__(
        self,
        filters: Filters,
        *,
        find: Find,
        health: Callable[[ContainerRecord], str],
        ports: Callable[[ContainerRecord], Iterable[Mapping[str, object]]],
        networks: Callable[[], Mapping[str, str]],
    ) -> None:
        """``ports`` returns those that lists show of a container, ``networks`` all by their ids."""
        self._filters = filters
        named = {
            start: {name for id_, name in networks().items() if id_.startswith(start)}
            for start in filters.get("network", ())
        }
        self._ports = ports
        self._wanted = {key: _ports(key, filters.get(key, ())) for key in ("publish", "expose")}
        self._checks: dict[str, Callable[[ContainerRecord, str], bool]] = {
            "ancestor": _has_ancestor,
            "annotation": lambda r, v: has_labels(r.host_config.annotations, [v]),
            "exited": lambda r, v: r.status == status.EXITED and str(r.exit_code) == v,
            "health": lambda r, v: health(r) == v,
            "id": lambda r, v: r.id.startswith(v),
            "is-task": lambda _, v: not flag("is-task", [v]),
            "name": lambda r, v: matches(v, f"/{r.name}") or matches(v, r.name),
            "network": lambda r, v: (
                v in (r.host_config.network_mode, *r.networks)
                or not named[v].isdisjoint(r.networks)
            ),
            "status": lambda r, v: r.status == v,
            "volume": _has_volume,
        }
        self._moments = {
            key: [_created_ns(find, ref) for ref in filters[key]]
            for key in ("before", "since")
            if key in filters
        }
        known = {*self._checks, *self._wanted, "label", "before", "since"}
        for key in filters:
            if key not in known:
                raise InvalidArgument(f"invalid filter '{key}'")
        if "is-task" in filters:
            flag("is-task", filters["is-task"])
        for value in filters.get("health", ()):
            if value not in HEALTH_STATES:
                raise InvalidArgument(f"invalid value for health filter: {value}")
        for value in filters.get("status", ()):
            if value not in status.ALL:
                raise InvalidArgument(f"invalid value for status filter: {value}")
        for value in filters.get("exited", ()):
            if not value.removeprefix("-").isdigit():
                raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax')

    @property
    def includes_ended(self) -> bool:
        """Say whether the filters speak of containers that do not run."""
        return bool(self._filters.get("status") or self._filters.get("exited"))

    def __call__(self, record: ContainerRecord) -> bool:
        """Say whether a container passes."""
        if not has_labels(record.config.labels, self._filters.get("label", ())):
            return False
        if any(self._wanted.values()) and not any(map(self._is_wanted, self._ports(record))):
            return False
        if any(record.created_ns >= moment for moment in self._moments.get("before", ())):
            return False
        if any(record.created_ns <= moment for moment in self._moments.get("since", ())):
            return False
        return all(
            any(self._checks[key](record, value) for value in values)
            for key, values in self._filters.items()
            if key in self._checks and values
        )

    def _is_wanted(self, port: Mapping[str, object]) -> bool:
        """Say whether a port of the host or of the container is asked for: one of either will do."""
        pairs = (("PublicPort", "publish"), ("PrivatePort", "expose"))
        return any((port.get(name), port["Type"]) in self._wanted[key] for name, key in pairs)


def _created_ns(find: Find, ref: str) -> int:
    return find(ref).created_ns


def _has_ancestor(record: ContainerRecord, value: str) -> bool:
    plain = record.image_id.removeprefix("sha256:")
    image = record.config.image
    return value in (image, record.image_id, image.removesuffix(":latest")) or (
        len(value) >= 12 and plain.startswith(value.removeprefix("sha256:"))
    )


def _ports(key: str, values: Sequence[str]) -> set[tuple[int, str]]:
    """Return the ports that are meant by "80", "53/udp" and "8000-8100/tcp"."""
    found: set[tuple[int, str]] = set()
    for value in values:
        numbers, slash, protocol = value.partition("/")
        first, dash, last = numbers.partition("-")
        try:
            start, kind = parse_port(f"{first}{slash}{protocol}")
            end, _ = parse_port(last) if dash else (start, kind)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"error while looking up for {key} {value}: {error.message}"
            ) from None
        found.update((number, kind) for number in range(start, end + 1))
    return found


def _has_volume(record: ContainerRecord, value: str) -> bool:
    return any(value in (point.volume, point.source, point.target) for point in record.mount_points)


class PruneFilter:
    """The filters of prune: label, label! and until."""

    def __init__(self, filters: Filters, *, more: Sequence[str] = ()) -> None:
        for key in filters:
            if key not in ("label", "label!", "until", *more):
                raise InvalidArgument(f"invalid filter '{key}'")
        self._labels = filters.get("label", ())
        self._unlabels = filters.get("label!", ())
        self._until_ns = [times.moment_ns(value) for value in filters.get("until", ())]

    def __call__(self, labels: Mapping[str, str] | None, created_ns: int) -> bool:
        """Say whether what has these labels and was made then is to go."""
        if any(created_ns > moment for moment in self._until_ns):
            return False
        if any(has_labels(labels, [text]) for text in self._unlabels):
            return False
        return has_labels(labels, self._labels)


def event_passes(event: Event, filters: Filters) -> bool:
    """Say whether an event passes."""
    actor = event["Actor"]
    assert isinstance(actor, dict)
    kind, id_ = str(event["Type"]), str(actor["ID"])
    attributes: dict[str, str] = actor["Attributes"]
    for key, values in filters.items():
        if not values:
            continue
        if key == "label":
            passes = has_labels(attributes, values)
        elif key in ("type", "scope"):
            passes = str(event["Type" if key == "type" else "scope"]) in values
        elif key == "event":
            passes = str(event["Action"]).partition(":")[0] in values
        else:  # what swarms and plugins tell never happens here
            passes = any(_names(key, kind, id_, attributes, value) for value in values)
        if not passes:
            return False
    return True


def _names(key: str, kind: str, id_: str, attributes: Mapping[str, str], value: str) -> bool:
    """Say whether the event is of the thing ``value``, or for images of a container of it."""
    if key == "image" and kind in ("container", "image"):
        name = attributes.get("image" if kind == "container" else "name", "")
        return value in (id_, id_.removeprefix("sha256:"), name, _untagged(name), f"{name}:latest")
    if kind != key:
        return False
    return id_.startswith(value) or value.removeprefix("/") == attributes.get("name")


def _untagged(name: str) -> str:
    """Return an image's name without its tag; the last colon may be a port's."""
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name
