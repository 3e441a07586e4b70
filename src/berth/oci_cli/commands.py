"""The commands of `berth-oci`, their flags, and where their code is."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from berth.cli.options import Flag
    from berth.oci_cli.invocation import Invocation

MANY = 1 << 16
SPEC_VERSION = "1.3.0"

MAKING: tuple[Flag, ...] = (
    (
        "bundle",
        "b",
        "string",
        "path to the root of the bundle directory, defaults to the current one",
    ),
    ("console-socket", "", "string", "path to a socket that receives the terminal's descriptor"),
    ("pid-file", "", "string", "file to write the process id to"),
    ("preserve-fds", "", "int", "pass N additional file descriptors to the container"),
    ("no-pivot", "", "bool", "do not use pivot_root, for a root in a ramdisk"),
    ("no-new-keyring", "", "bool", "do not create a new session keyring"),
)
RUNNING: tuple[Flag, ...] = (
    *MAKING,
    ("detach", "d", "bool", "detach from the container's process"),
    ("keep", "", "bool", "do not delete the container after it has ended"),
    ("no-subreaper", "", "bool", "(there is no subreaper)"),
)
CRIU: tuple[Flag, ...] = (
    ("image-path", "", "string", "path to criu's image files, ./checkpoint unless said"),
    ("work-path", "", "string", "path for criu's work files and logs"),
    ("tcp-established", "", "bool", "allow open TCP connections"),
    ("ext-unix-sk", "", "bool", "allow Unix sockets whose other end is outside"),
    ("shell-job", "", "bool", "allow a terminal from outside"),
    ("file-locks", "", "bool", "take file locks along"),
    (
        "manage-cgroups-mode",
        "",
        "string",
        "what criu does with cgroups: soft (default), full or strict",
    ),
    ("empty-ns", "", "list", "make a namespace (network), but leave out what is in it"),
    ("auto-dedup", "", "bool", "keep no page of memory twice"),
    ("lazy-pages", "", "bool", "bring memory after, page by page, when it is needed"),
)
CHECKPOINTING: tuple[Flag, ...] = (
    *CRIU,
    ("parent-path", "", "string", "path, from the image files, to those of a pre-dump"),
    ("leave-running", "", "bool", "let the container go on"),
    ("status-fd", "", "int", "descriptor that gets a zero byte when pages can be asked for"),
    ("page-server", "", "string", "ADDRESS:PORT to send memory to"),
    ("pre-dump", "", "bool", "only memory, and let the container go on"),
)
RESTORING: tuple[Flag, ...] = (
    *CRIU,
    *RUNNING,
    ("lsm-profile", "", "string", "TYPE:NAME of the security profile"),
    ("lsm-mount-context", "", "string", "SELinux context of mounts"),
)
JOINING: tuple[Flag, ...] = (
    ("console-socket", "", "string", "path to a socket that receives the terminal's descriptor"),
    ("cwd", "", "string", "working directory in the container"),
    ("env", "e", "list", "set environment variables"),
    ("tty", "t", "bool", "allocate a terminal"),
    ("user", "u", "string", "UID[:GID]"),
    ("additional-gids", "g", "list", "additional groups"),
    ("process", "p", "string", "path to a process.json"),
    ("detach", "d", "bool", "detach from the process"),
    ("pid-file", "", "string", "file to write the process id to"),
    ("process-label", "", "string", "SELinux label of the process"),
    ("apparmor", "", "string", "AppArmor profile of the process"),
    ("no-new-privs", "", "bool", "set no_new_privs"),
    ("cap", "c", "list", "add a capability to all sets but the ambient one"),
    ("preserve-fds", "", "int", "pass N additional file descriptors to the process"),
    ("cgroup", "", "list", "run the process in a (existing) group below the container's"),
    ("ignore-paused", "", "bool", "allow exec in a paused container"),
    ("no-subreaper", "", "bool", "(there is no subreaper)"),
)
UPDATING: tuple[Flag, ...] = (
    ("resources", "r", "string", "path to a JSON document with resources, - for stdin"),
    ("blkio-weight", "", "int", "relative weight of block I/O, 10 to 1000"),
    ("cpu-period", "", "string", "CFS period in microseconds"),
    ("cpu-quota", "", "string", "CFS quota in microseconds"),
    ("cpu-burst", "", "string", "CFS burst in microseconds"),
    ("cpu-share", "", "string", "CPU shares"),
    ("cpu-rt-period", "", "string", "real-time period in microseconds"),
    ("cpu-rt-runtime", "", "string", "real-time runtime in microseconds"),
    ("cpuset-cpus", "", "string", "processors to use"),
    ("cpuset-mems", "", "string", "memory nodes to use"),
    ("cpu-idle", "", "string", "1: run only when nothing else wants to"),
    ("kernel-memory", "", "string", "(obsolete)"),
    ("kernel-memory-tcp", "", "string", "(obsolete)"),
    ("memory", "", "string", "memory limit"),
    ("memory-reservation", "", "string", "soft memory limit"),
    ("memory-swap", "", "string", "limit of memory and swap; -1 is unlimited"),
    ("pids-limit", "", "int", "limit of processes"),
    ("l3-cache-schema", "", "string", "(not here)"),
    ("mem-bw-schema", "", "string", "(not here)"),
)


class Command:
    """One command: where its function is, and what it takes."""

    def __init__(
        self,
        module: str,
        usage: str,
        flags: tuple[Flag, ...] = (),
        *,
        counts: tuple[int, int] = (1, 1),
    ) -> None:
        self.module = module
        self.usage = usage
        self.flags = flags
        self.least, self.most = counts
        self.mixed = True
        self.failure = ""
        self.exit_on_failure = 1

    def fails_with(self, prefix: str, status: int = 1) -> Command:
        """Set what its failures begin with, and its exit code then."""
        self.failure, self.exit_on_failure = prefix, status
        return self

    def ends_flags(self) -> Command:
        """Let the first argument end the flags: others belong to a program."""
        self.mixed = False
        return self

    def count(self) -> str:
        """Say how many arguments it takes."""
        if self.least == self.most:
            return f"requires exactly {self.least} argument(s)"
        if self.most < MANY:
            return f"requires a minimum of {self.least} and a maximum of {self.most} arguments"
        return f"requires a minimum of {self.least} argument(s)"

    def load(self, name: str) -> Callable[[Invocation], int]:
        """Return its function."""
        loaded = __import__(f"berth.oci_cli.{self.module}", fromlist=["VERBS"])
        found: Callable[[Invocation], int] = getattr(loaded, f"do_{name}")
        return found


COMMANDS: dict[str, Command] = {
    "create": Command("lives", "create a container", MAKING).fails_with("{} create failed: "),
    "start": Command("lives", "start the program of a created container"),
    "run": Command("lives", "create and start a container", RUNNING).fails_with("{} run failed: "),
    "state": Command("showing", "show the state of a container"),
    "kill": Command(
        "lives",
        "send a signal (SIGTERM unless said) to a container's first process",
        (("all", "a", "bool", "send it to all processes in the container"),),
        counts=(1, 2),
    ),
    "delete": Command(
        "lives",
        "remove what is left of a container",
        (("force", "f", "bool", "kill it first, if it runs"),),
        counts=(1, MANY),
    ),
    "list": Command(
        "showing",
        "list containers",
        (
            ("format", "f", "string", "table (default) or json"),
            ("quiet", "q", "bool", "only ids"),
        ),
        counts=(0, 0),
    ),
    "ps": Command(
        "showing",
        "show the processes of a container",
        (("format", "f", "string", "table (default) or json"),),
        counts=(1, MANY),
    ).ends_flags(),
    "exec": Command("joining", "run a program in a running container", JOINING, counts=(1, MANY))
    .fails_with("exec failed: ", 255)
    .ends_flags(),
    "pause": Command("lives", "stop all processes of a container"),
    "resume": Command("lives", "let all processes of a paused container go on"),
    "update": Command("updating", "change the limits of a container", UPDATING),
    "events": Command(
        "events",
        "show what a container uses, and when memory runs out",
        (
            ("interval", "", "duration", "how often (default: 5s)"),
            ("stats", "", "bool", "show it once"),
        ),
    ),
    "features": Command("features", "say what is possible here, as JSON", counts=(0, 0)),
    "spec": Command(
        "bundles",
        "write a config.json to begin with",
        (
            ("bundle", "b", "string", "path to the root of the bundle directory"),
            ("rootless", "", "bool", "for an ordinary user"),
        ),
        counts=(0, 0),
    ),
    "zygote": Command("zygote", "run containers for later calls of run, quicker", counts=(0, 0)),
    "checkpoint": Command(
        "checkpoints", "write the processes of a running container to files", CHECKPOINTING
    ),
    "restore": Command("checkpoints", "make a container of such files", RESTORING),
}
MAKERS = ("create", "run", "restore")  # of groups
ALIASES = {"init": "spec"}


def program() -> str:
    """Return the name that it was called by: callers may know it as another runtime's."""
    return os.environ.get("BERTH_OCI_NAME") or "berth-oci"


def show_version() -> int:
    """Print the versions of the command and of the specification."""
    from berth import __version__

    print(f"{program()} version {__version__}\ncommit: v{__version__}\nspec: {SPEC_VERSION}")
    return 0


def show_help(flags: Sequence[Flag], name: str) -> int:
    """Print what commands there are, or what flags the one called ``name`` has."""
    if name:
        command = COMMANDS[name]
        print(f"NAME:\n   {program()} {name} - {command.usage}\n\nOPTIONS:")
        _show_flags(command.flags)
        return 0
    print(f"NAME:\n   {program()} - Open Container Initiative runtime\n")
    print(f"USAGE:\n   {program()} [global options] command [command options] [arguments...]\n")
    print("COMMANDS:")
    for name, command in COMMANDS.items():
        print(f"   {name:<12}{command.usage}")
    print("\nGLOBAL OPTIONS:")
    _show_flags(flags)
    return 0


def _show_flags(flags: Sequence[Flag]) -> None:
    for name, short, kind, text in flags:
        shown = (
            f"--{name}" + (f", -{short}" if short else "") + ("" if kind == "bool" else " value")
        )
        print(f"   {shown:<30}{text}")
