"""/system/df as clients of API 1.52 and later read it: what each kind of thing takes, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Document = dict[str, object]

ACTIVE = (*status.ALIVE, status.RESTARTING)


def usage(known: Document, *, verbose: bool) -> Document:
    """Return the figures of the kinds that are ``known``, and with ``verbose`` what they count."""
    makers: dict[str, tuple[str, Callable[[Document], Document]]] = {
        "Images": ("ImageUsage", _images),
        "Containers": ("ContainerUsage", _containers),
        "Volumes": ("VolumeUsage", _volumes),
        "BuildCache": ("BuildCacheUsage", _build_cache),
    }
    found: Document = {}
    for name, (shown, make) in makers.items():
        if name in known:
            items = {"Items": known[name]} if verbose else {}
            found[shown] = {**make(known), **items}
    return found


def _images(known: Document) -> Document:
    images = _items(known, "Images")
    used = [image for image in images if _number(image, "Containers") > 0]
    total = _number(known, "LayersSize")
    own = sum(_number(i, "Size") - max(0, _number(i, "SharedSize")) for i in used)
    return _figures(len(used), len(images), total=total, reclaimable=max(0, total - own))


def _containers(known: Document) -> Document:
    containers = _items(known, "Containers")
    idle = [container for container in containers if container["State"] not in ACTIVE]
    return _figures(
        len(containers) - len(idle),
        len(containers),
        total=_sum(containers, "SizeRw"),
        reclaimable=_sum(idle, "SizeRw"),
    )


def _volumes(known: Document) -> Document:
    volumes = _items(known, "Volumes")
    data = [used for volume in volumes if isinstance(used := volume["UsageData"], dict)]
    unused = [used for used in data if not _number(used, "RefCount")]
    return _figures(
        len(volumes) - len(unused),
        len(volumes),
        total=_sum(data, "Size"),
        reclaimable=_sum(unused, "Size"),
    )


def _build_cache(known: Document) -> Document:
    entries = _items(known, "BuildCache")
    unused = [entry for entry in entries if not entry["InUse"]]
    return _figures(
        len(entries) - len(unused),
        len(entries),
        total=_sum(entries, "Size"),
        reclaimable=_sum(unused, "Size"),
    )


def _figures(active: int, count: int, *, total: int, reclaimable: int) -> Document:
    return {
        "ActiveCount": active,
        "TotalCount": count,
        "Reclaimable": reclaimable,
        "TotalSize": total,
    }


def _items(known: Document, name: str) -> list[Document]:
    items = known[name]
    assert isinstance(items, list)
    return items


def _sum(items: Iterable[Document], name: str) -> int:
    return sum(max(0, _number(item, name)) for item in items)


def _number(item: Document, name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) else 0
