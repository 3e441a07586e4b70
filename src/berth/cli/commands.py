"""The table of commands: module, usage, what it does, how many arguments; modules are loaded on demand."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from berth.cli.call import Call
    from berth.cli.options import Flag

    Verb = tuple[Sequence[Flag], Callable[[Call], int]]
    Row = tuple[str, str, str, int, int]

MANY = 1 << 30

COMMANDS: dict[str, Row] = {
    "serve": ("serve", "[OPTIONS]", "Run an engine", 0, 0),
    "run": (
        *("run", "[OPTIONS] IMAGE [COMMAND] [ARG...]"),
        *("Create and run a new container from an image", 1, MANY),
    ),
    "create": ("run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", 1, MANY),
    "start": (
        *("attaching", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Start one or more stopped containers", 1, MANY),
    ),
    "attach": (
        *("attaching", "[OPTIONS] CONTAINER"),
        *("Attach local standard input, output, and error streams to a running container", 1, 1),
    ),
    "exec": (
        *("attaching", "[OPTIONS] CONTAINER COMMAND [ARG...]"),
        *("Execute a command in a running container", 2, MANY),
    ),
    "stop": (
        *("lifecycle", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Stop one or more running containers", 1, MANY),
    ),
    "restart": (
        *("lifecycle", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Restart one or more containers", 1, MANY),
    ),
    "kill": (
        *("lifecycle", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Kill one or more running containers", 1, MANY),
    ),
    "pause": (
        *("lifecycle", "CONTAINER [CONTAINER...]"),
        *("Pause all processes within one or more containers", 1, MANY),
    ),
    "unpause": (
        *("lifecycle", "CONTAINER [CONTAINER...]"),
        *("Unpause all processes within one or more containers", 1, MANY),
    ),
    "wait": (
        *("lifecycle", "CONTAINER [CONTAINER...]"),
        *("Block until one or more containers stop, then print their exit codes", 1, MANY),
    ),
    "rm": (
        *("lifecycle", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Remove one or more containers", 1, MANY),
    ),
    "rename": ("lifecycle", "CONTAINER NEW_NAME", "Rename a container", 2, 2),
    "ps": ("listing", "[OPTIONS]", "List containers", 0, 0),
    "top": (
        *("listing", "CONTAINER [ps OPTIONS]"),
        *("Display the running processes of a container", 1, MANY),
    ),
    "port": (
        *("listing", "CONTAINER [PRIVATE_PORT[/PROTO]]"),
        *("List port mappings or a specific mapping for the container", 1, 2),
    ),
    "cp": (
        *(
            "copying",
            "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tberth cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        ),
        *("Copy files/folders between a container and the local filesystem", 2, 2),
    ),
    "diff": (
        *("taking", "CONTAINER"),
        *("Inspect changes to files or directories on a container's filesystem", 1, 1),
    ),
    "export": (
        *("taking", "[OPTIONS] CONTAINER"),
        *("Export a container's filesystem as a tar archive", 1, 1),
    ),
    "commit": (
        *("taking", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]"),
        *("Create a new image from a container's changes", 1, 2),
    ),
    "update": (
        *("update", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Update configuration of one or more containers", 1, MANY),
    ),
    "logs": ("logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container", 1, 1),
    "stats": (
        *("stats", "[OPTIONS] [CONTAINER...]"),
        *("Display a live stream of container(s) resource usage statistics", 0, MANY),
    ),
    "inspect": (
        *("inspect", "[OPTIONS] NAME|ID [NAME|ID...]"),
        *("Return low-level information on objects", 1, MANY),
    ),
    "build": (
        *("build", "[OPTIONS] PATH | URL | -"),
        *("Build an image from a Dockerfile", 1, 1),
    ),
    "builder prune": ("prune", "[OPTIONS]", "Remove build cache", 0, 0),
    "images": ("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", 0, 1),
    "rmi": ("images", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", 1, MANY),
    "tag": (
        *("images", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"),
        *("Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", 2, 2),
    ),
    "history": ("history", "[OPTIONS] IMAGE", "Show the history of an image", 1, 1),
    "import": (
        *("archives", "[OPTIONS] file|- [REPOSITORY[:TAG]]"),
        *("Import the contents from a tarball to create a filesystem image", 1, MANY),
    ),
    "load": ("archives", "[OPTIONS]", "Load an image from a tar archive or STDIN", 0, 0),
    "save": (
        *("archives", "[OPTIONS] IMAGE [IMAGE...]"),
        *("Save one or more images to a tar archive (streamed to STDOUT by default)", 1, MANY),
    ),
    "pull": (
        *("archives", "[OPTIONS] NAME[:TAG|@DIGEST]"),
        *("Download an image from a registry", 1, 1),
    ),
    "push": ("registries", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", 1, 1),
    "search": ("searching", "[OPTIONS] TERM", "Search Docker Hub for images", 1, 1),
    "login": ("registries", "[OPTIONS] [SERVER]", "Authenticate to a registry", 0, 1),
    "logout": ("registries", "[SERVER]", "Log out from a registry", 0, 1),
    "events": ("events", "[OPTIONS]", "Get real time events from the server", 0, 0),
    "info": ("system", "[OPTIONS]", "Display system-wide information", 0, 0),
    "version": ("system", "[OPTIONS]", "Show the version information", 0, 0),
    "checkpoint create": (
        *("checkpoints", "[OPTIONS] CONTAINER CHECKPOINT"),
        *("Create a checkpoint from a running container", 2, 2),
    ),
    "checkpoint ls": (
        *("checkpoints", "[OPTIONS] CONTAINER", "List checkpoints for a container", 1, 1),
    ),
    "checkpoint rm": (
        *("checkpoints", "[OPTIONS] CONTAINER CHECKPOINT", "Remove a checkpoint", 2, 2),
    ),
    "container inspect": (
        *("inspect", "[OPTIONS] CONTAINER [CONTAINER...]"),
        *("Display detailed information on one or more containers", 1, MANY),
    ),
    "container prune": ("prune", "[OPTIONS]", "Remove all stopped containers", 0, 0),
    "image inspect": (
        *("inspect", "[OPTIONS] IMAGE [IMAGE...]"),
        *("Display detailed information on one or more images", 1, MANY),
    ),
    "image prune": ("prune", "[OPTIONS]", "Remove unused images", 0, 0),
    "manifest inspect": (
        *("manifest", "[OPTIONS] MANIFEST"),
        *("Display an image manifest, or manifest list", 1, 1),
    ),
    "manifest referrers": (
        *("manifest", "[OPTIONS] IMAGE"),
        *("List what refers to an image in its registry", 1, 1),
    ),
    "manifest create": (
        *("manifest", "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]"),
        *("Create a local manifest list for pushing to a registry", 2, MANY),
    ),
    "manifest annotate": (
        *("manifest", "[OPTIONS] MANIFEST_LIST MANIFEST"),
        *("Add additional information to a local image manifest", 2, 2),
    ),
    "manifest push": (
        *("manifest", "[OPTIONS] MANIFEST_LIST"),
        *("Push a manifest list to a repository", 1, 1),
    ),
    "manifest rm": (
        *("manifest", "MANIFEST_LIST [MANIFEST_LIST...]"),
        *("Delete one or more manifest lists from local storage", 1, MANY),
    ),
    "system check": (
        *("checking", "[OPTIONS]"),
        *("Verify every blob, image and layer that the engine has stored", 0, 0),
    ),
    "system dial-stdio": (
        *("dialing", "", "Carry the engine's API over standard input and output", 0, 0),
    ),
    "system df": ("disk", "[OPTIONS]", "Show disk usage", 0, 0),
    "system prune": ("prune", "[OPTIONS]", "Remove unused data", 0, 0),
    "network ls": ("networks", "[OPTIONS]", "List networks", 0, 0),
    "network connect": (
        *("networks", "[OPTIONS] NETWORK CONTAINER"),
        *("Connect a container to a network", 2, 2),
    ),
    "network shape": (
        *("networks", "[OPTIONS] NETWORK CONTAINER"),
        *("Limit, delay or lose a container's packets", 2, 2),
    ),
    "network disconnect": (
        *("networks", "[OPTIONS] NETWORK CONTAINER"),
        *("Disconnect a container from a network", 2, 2),
    ),
    "network create": ("networks", "[OPTIONS] NETWORK", "Create a network", 1, 1),
    "network rm": ("networks", "NETWORK [NETWORK...]", "Remove one or more networks", 1, MANY),
    "network inspect": (
        *("networks", "[OPTIONS] NETWORK [NETWORK...]"),
        *("Display detailed information on one or more networks", 1, MANY),
    ),
    "network prune": ("prune", "[OPTIONS]", "Remove all unused networks", 0, 0),
    "volume ls": ("volumes", "[OPTIONS]", "List volumes", 0, 0),
    "volume create": ("volumes", "[OPTIONS] [VOLUME]", "Create a volume", 0, 1),
    "volume rm": ("volumes", "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", 1, MANY),
    "volume inspect": (
        *("volumes", "[OPTIONS] VOLUME [VOLUME...]"),
        *("Display detailed information on one or more volumes", 1, MANY),
    ),
    "volume prune": ("prune", "[OPTIONS]", "Remove unused local volumes", 0, 0),
}
GROUPS = {
    "builder": "Manage builds",
    "checkpoint": "Manage checkpoints",
    "container": "Manage containers",
    "image": "Manage images",
    "network": "Manage networks",
    "manifest": "Manage image manifests and manifest lists",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}
# Commands of groups that are plain ones too, under the name that they have in the group.
MEMBERS: dict[str, dict[str, str]] = {
    "builder": {"build": "build"},
    "container": {
        **{
            name: name
            for name in (
                *(
                    "attach",
                    "commit",
                    "cp",
                    "create",
                    "diff",
                    "exec",
                    "export",
                    "kill",
                    "logs",
                    "pause",
                    "port",
                    "rename",
                    "restart",
                ),
                *("rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
            )
        },
        "ls": "ps",
    },
    "image": {
        **{
            name: name
            for name in ("build", "history", "import", "load", "pull", "push", "save", "tag")
        },
        "ls": "images",
        "rm": "rmi",
    },
    "system": {"events": "events", "info": "info"},
}
SYNONYMS = {"list": "ls", "ps": "ls", "remove": "rm"}
FIRST_POSITIONAL_ENDS = ("run", "create", "exec", "top")


def find(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the command's name and the arguments after it; an unknown name is as typed."""
    first, rest = arguments[0], arguments[1:]
    if not rest or first not in GROUPS or rest[0].startswith("-"):
        return first, rest
    word = rest[0]
    members = MEMBERS.get(first, {})
    for verb in (word, SYNONYMS.get(word, word)):
        if verb in members:
            return members[verb], rest[1:]
        if f"{first} {verb}" in COMMANDS:
            return f"{first} {verb}", rest[1:]
    return f"{first} {word}", rest[1:]
