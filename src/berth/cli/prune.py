"""`berth builder`, `container`, `image`, `network`, `volume` and `system prune`."""

from __future__ import annotations

import sys

from berth.cli import listing, units
from berth.client import documents
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

FORCE: Flag = ("force", "f", "bool", "Do not prompt for confirmation")
UNTIL: Flag = ("filter", "", "filter", 'Provide filter values (e.g. "until=<timestamp>")')
LABEL: Flag = ("filter", "", "filter", 'Provide filter values (e.g. "label=<label>")')
FLAGS: tuple[Flag, ...] = (UNTIL, FORCE)
IMAGE_FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Remove all unused images, not just dangling ones"),
    *FLAGS,
)
BUILDER_FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Remove all unused build cache, not just dangling ones"),
    *FLAGS,
    ("keep-storage", "", "bytes", "Amount of disk space to keep for cache"),
    ("max-used-space", "", "bytes", "Most disk space that the cache may take"),
    ("min-free-space", "", "bytes", "Disk space that is to be free afterwards"),
    ("reserved-space", "", "bytes", "Amount of disk space to keep for cache in any case"),
)
VOLUME_FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
    *(LABEL, FORCE),
)
SYSTEM_FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Remove all unused images not just dangling ones"),
    *(LABEL, FORCE),
    ("volumes", "", "bool", "Prune anonymous volumes"),
)
CONTAINERS = "WARNING! This will remove all stopped containers."
BUILDS = "WARNING! This will remove all dangling build cache."
NETWORKS = "WARNING! This will remove all custom networks not used by at least one container."
DANGLING_IMAGES = "WARNING! This will remove all dangling images."
UNUSED_IMAGES = (
    "WARNING! This will remove all images without at least one container associated to them."
)
UNNAMED_VOLUMES = (
    "WARNING! This will remove anonymous local volumes not used by at least one container."
)
UNUSED_VOLUMES = "WARNING! This will remove all local volumes not used by at least one container."
SURE = "Are you sure you want to continue?"

Pruned = tuple[str, int]  # what to print, bytes


def is_confirmed(call: Call, warning: str) -> bool:
    """Ask the person, unless --force says not to."""
    if call.options.on("force"):
        return True
    print(f"{warning}\n{SURE} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() == "y"


def _answer(call: Call, path: str, filters: Sequence[str]) -> object:
    query = {"filters": listing.filters(filters)}
    return call.engine.request("POST", path, query).document()


def _names(title: str, names: Sequence[str]) -> str:
    return "".join([f"{title}:\n", *(f"{name}\n" for name in names)]) if names else ""


def _containers(call: Call) -> Pruned:
    answer = _answer(call, "/containers/prune", call.options.all("filter"))
    text = _names("Deleted Containers", documents.strings(answer, "ContainersDeleted"))
    return text, documents.number(answer, "SpaceReclaimed")


def _images(call: Call) -> Pruned:
    dangling = f"dangling={'false' if call.options.on('all') else 'true'}"
    answer = _answer(call, "/images/prune", [*call.options.all("filter"), dangling])
    lines = [
        f"{verb.lower()}: {name}"
        for item in documents.items(answer, "ImagesDeleted")
        for verb in ("Untagged", "Deleted")
        if (name := documents.text(item, verb))
    ]
    return _names("Deleted Images", lines), documents.number(answer, "SpaceReclaimed")


def _builds(call: Call) -> Pruned:
    query = {"filters": listing.filters(call.options.all("filter"))}
    if call.options.on("all"):
        query["all"] = "1"
    for name in ("keep-storage", "max-used-space", "min-free-space", "reserved-space"):
        if call.options.given(name):
            query[name] = str(call.options.number(name))
    answer = call.engine.request("POST", "/build/prune", query).document()
    text = _names("Deleted build cache objects", documents.strings(answer, "CachesDeleted"))
    return text, documents.number(answer, "SpaceReclaimed")


def _networks(call: Call) -> Pruned:
    answer = _answer(call, "/networks/prune", call.options.all("filter"))
    return _names("Deleted Networks", documents.strings(answer, "NetworksDeleted")), 0


def _volumes(call: Call) -> Pruned:
    wanted = call.options.all("filter")
    named = call.name == "volume prune" and call.options.on("all")
    if any(text.startswith("all=") for text in wanted):
        if named:
            raise InvalidArgument(
                "conflicting options: cannot specify both --all and --filter all=1"
            )
    else:
        # Said in either case: what its absence means depends on the API's version.
        wanted = [*wanted, f"all={'true' if named else 'false'}"]
    answer = _answer(call, "/volumes/prune", wanted)
    text = _names("Deleted Volumes", documents.strings(answer, "VolumesDeleted"))
    return text, documents.number(answer, "SpaceReclaimed")


def _pruning(
    prune: Callable[[Call], Pruned], warning: str, *, of_all: str = "", counts: bool = True
) -> Callable[[Call], int]:
    """Return the command that removes one kind of thing; ``of_all`` warns of --all."""

    def command(call: Call) -> int:
        if not is_confirmed(call, of_all if of_all and call.options.on("all") else warning):
            return 0
        text, size = prune(call)
        if text:
            print(text)
        if counts:
            print(f"Total reclaimed space: {units.human_size(size, digits=4)}")
        return 0

    return command


def system(call: Call) -> int:
    """Remove everything that nothing uses."""
    options = call.options
    volumes = options.on("volumes")
    if volumes and any(text.startswith("until=") for text in options.all("filter")):
        raise InvalidArgument('ERROR: The "until" filter is not supported with "--volumes"')
    if not is_confirmed(call, _system_warning(call)):
        return 0
    size = 0
    for prune in (_containers, _networks, *((_volumes,) if volumes else ()), _images):
        text, freed = prune(call)
        size += freed
        if text:
            print(text)
    print(f"Total reclaimed space: {units.human_size(size, digits=4)}")
    return 0


def _system_warning(call: Call) -> str:
    options = call.options
    lines = ["all stopped containers", "all networks not used by at least one container"]
    if options.on("volumes"):
        lines.append("all anonymous volumes not used by at least one container")
    lines.append(
        "all images without at least one container associated to them"
        if options.on("all")
        else "dangling images"
    )
    text = "\n".join(["WARNING! This will remove:", *(f"  - {line}" for line in lines), ""])
    if filters := options.all("filter"):
        shown = "\n".join(f"  - {text}" for text in sorted(filters))
        text += f"\n  Items to be pruned will be filtered with:\n{shown}\n"
    return text


VERBS: dict[str, Verb] = {
    "container prune": (FLAGS, _pruning(_containers, CONTAINERS)),
    "builder prune": (BUILDER_FLAGS, _pruning(_builds, BUILDS)),
    "image prune": (IMAGE_FLAGS, _pruning(_images, DANGLING_IMAGES, of_all=UNUSED_IMAGES)),
    "network prune": (FLAGS, _pruning(_networks, NETWORKS, counts=False)),
    "volume prune": (VOLUME_FLAGS, _pruning(_volumes, UNNAMED_VOLUMES, of_all=UNUSED_VOLUMES)),
    "system prune": (SYSTEM_FLAGS, system),
}
