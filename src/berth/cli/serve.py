"""`berth serve`: run an engine in this process."""

from __future__ import annotations

import os
import sys

from berth.cli.options import SWITCHES
from berth.client.address import default_roots
from berth.errors import Forbidden, InvalidArgument

# Of asyncio, shutil (what packs and unpacks archives) and msgspec.
DISPENSABLE = ("ssl", "bz2", "lzma", "zlib", "typing_extensions")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag, Options

# Each is a setting as well, under its own name or the one that NAMES says.
SETTINGS: tuple[Flag, ...] = (
    ("bip", "", "string", "Address of the default bridge, with its prefix"),
    ("bip6", "", "string", "IPv6 address of the default bridge, with its prefix"),
    ("bridge", "b", "string", "A bridge that is there already, for the default network"),
    ("cdi-spec-dir", "", "list", "Directories of descriptions of devices (CDI); empty for none"),
    ("cgroup-parent", "", "string", "Parent group of containers"),
    ("data-root", "", "string", "Directory of images, containers and volumes"),
    ("debug", "D", "bool", "Write what is done to the log, too"),
    ("default-address-pool", "", "list", "Subnets for networks (base=CIDR,size=BITS)"),
    ("default-cgroupns-mode", "", "string", "Cgroup namespace of containers (host or private)"),
    (
        "default-gateway",
        "",
        "string",
        "Router of the default bridge's containers, if it is another",
    ),
    ("default-gateway-v6", "", "string", "IPv6 router of them"),
    ("default-ipc-mode", "", "string", "IPC of containers (shareable or private)"),
    ("default-network-opt", "", "list", "Options of new networks (DRIVER=NAME=VALUE)"),
    ("default-shm-size", "", "string", "Size of /dev/shm in containers"),
    ("default-ulimit", "", "list", "Limits of processes in containers (NAME=SOFT[:HARD])"),
    ("dns", "", "list", "Name servers of containers"),
    ("dns-opt", "", "list", "Options in resolv.conf of containers"),
    ("dns-search", "", "list", "Search domains of containers"),
    ("exec-root", "", "string", "Directory of what lives until a reboot"),
    ("feature", "", "map", "Switch a feature on or off (NAME=BOOL)"),
    ("fixed-cidr", "", "string", "Addresses that containers of the default bridge get"),
    ("fixed-cidr-v6", "", "string", "IPv6 addresses that they get"),
    ("group", "G", "string", "Group that may use the unix socket"),
    ("host", "H", "list", "Listen on unix://PATH, tcp://HOST:PORT or fd:// (may be repeated)"),
    (
        "host-gateway-ip",
        "",
        "list",
        "What host-gateway is in --add-host (default: the container's router)",
    ),
    ("icc", "", "true", "Let containers of the default bridge reach each other"),
    ("init", "", "bool", "Run an init in containers"),
    ("insecure-registry", "", "list", "Registry (HOST[:PORT] or CIDR) to talk to without TLS"),
    ("ip", "", "string", "Address of the host for published ports without one"),
    ("ip-forward", "", "true", "Switch on forwarding in the kernel"),
    ("ip-masq", "", "true", "Let containers of the default bridge leave with the host's address"),
    ("ip6tables", "", "true", "Always on: networks have rules"),
    ("iptables", "", "true", "Always on: networks have rules"),
    ("ipv6", "", "bool", "Give the default bridge IPv6, too"),
    ("label", "", "list", "Labels of the engine (KEY=VALUE)"),
    ("live-restore", "", "bool", "Always on: containers go on without the engine"),
    ("log-driver", "", "string", "Driver of containers' logs"),
    ("log-level", "l", "string", "debug, info, warn, error or fatal"),
    ("log-opt", "", "map", "Options of containers' logs (KEY=VALUE)"),
    ("metrics-addr", "", "string", "HOST:PORT of metrics for Prometheus"),
    ("mtu", "", "int", "MTU of the default bridge"),
    ("no-new-privileges", "", "bool", "Set no-new-privileges in containers"),
    ("registry-mirror", "", "list", "URL of a registry to ask before docker.io"),
    ("storage-driver", "s", "string", "overlay2 or vfs (copies); default: what works"),
    ("storage-opt", "", "list", "Options of storage (overlay2.size=SIZE)"),
    ("tls", "", "bool", "Speak TLS on TCP; false allows TCP without"),
    ("tlscacert", "", "string", "Certificates of those who sign clients' certificates"),
    ("tlscert", "", "string", "Certificate of the engine"),
    ("tlskey", "", "string", "Private key of the engine"),
    ("tlsverify", "", "bool", "Speak TLS on TCP, with clients that have a certificate"),
    (
        "userns-remap",
        "",
        "string",
        "Whose subordinate ids containers have (USER[:GROUP] or default)",
    ),
    ("userland-proxy", "", "bool", "Of no effect: no port has a proxy"),
)
NAMES = {
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "feature": "features",
    "host": "hosts",
    "host-gateway-ip": "host-gateway-ips",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
FLAGS: tuple[Flag, ...] = (
    *SETTINGS,
    ("config-file", "", "string", "Settings in TOML (default /etc/berth/berth.toml)"),
    ("validate", "", "bool", "Check the settings and quit"),
    ("idle-exit", "", "int", "Leave after so many seconds without a client or a container"),
    ("socket", "", "string", ""),  # listen there, too: how the one that starts an engine finds it
    ("ready-fd", "", "int", ""),
)


def serve(call: Call) -> int:
    """Run until a signal ends it."""
    if sys.flags.no_site:  # the command starts without it; what an engine depends on lies there
        import site

        site.main()
    options = call.options
    if os.geteuid() != 0 and not options.on("validate"):
        raise Forbidden("start engine: root is needed (use sudo)")
    import_sparingly()
    from berth.configuration import sources

    flags = settings_of(options)
    file = options.text("config-file") if options.given("config-file") else None
    settings = sources.read(flags, file)
    if options.on("validate"):
        print("configuration OK")
        return 0
    from pathlib import Path

    from berth import berthd

    roots = default_roots()
    data_root = Path(settings.data_root or roots.data).absolute()
    exec_root = Path(settings.exec_root or roots.exec).absolute()
    socket = options.text("socket")
    hosts = (*settings.hosts, *([f"unix://{socket}"] if socket else []))
    idle_s = options.number("idle-exit")
    berthd.main(
        berthd.Options(
            settings=settings,
            reread=lambda: sources.read(flags, file),
            hosts=hosts or (f"unix://{exec_root}/berth.sock",),
            data_root=data_root,
            exec_root=exec_root,
            idle_exit_s=float(idle_s) if idle_s else None,
            ready_fd=options.number("ready-fd") if options.given("ready-fd") else None,
        )
    )
    return 0


def import_sparingly() -> None:
    """Import libraries without what they only try to import, for what berthd does not use: five megabytes.

    TLS is spoken without asyncio's. Whatever needs one of these imports it as ever, later.
    """
    absent = [name for name in DISPENSABLE if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an ImportError
    import asyncio
    import shutil

    import msgspec

    del asyncio, shutil, msgspec
    for name in absent:
        del sys.modules[name]


def settings_of(options: Options) -> dict[str, object]:
    """Return the settings that flags say, by their names in the file."""
    found: dict[str, object] = {}
    for name, _, kind, _ in SETTINGS:
        if not options.given(name):
            continue
        key = NAMES.get(name, name)
        if name == "default-address-pool":
            found[key] = [_pool(text) for text in options.all(name)]
        elif name == "default-network-opt":
            found[key] = _network_options(options.all(name))
        elif name == "default-ulimit":
            found[key] = dict(map(_ulimit, options.all(name)))
        elif name == "feature":
            found[key] = {k: _truth(name, v) for k, v in options.pairs(name).items()}
        elif kind == "map":
            found[key] = options.pairs(name)
        elif kind == "list":
            found[key] = options.all(name)
        elif kind in SWITCHES:
            found[key] = options.on(name)
        else:
            found[key] = options.number(name) if kind == "int" else options.text(name)
    return found


def _pool(text: str) -> dict[str, object]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    size = fields.get("size", "")
    if fields.keys() != {"base", "size"} or not size.isdecimal():
        raise InvalidArgument(f"invalid argument {text!r} for --default-address-pool flag")
    return {"base": fields["base"], "size": int(size)}


def _network_options(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        driver, _, option = text.partition("=")
        name, equals, value = option.partition("=")
        if not (driver and name and equals):
            raise InvalidArgument(f"invalid argument {text!r} for --default-network-opt flag")
        found.setdefault(driver, {})[name] = value
    return found


def _ulimit(text: str) -> tuple[str, dict[str, object]]:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return name, {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise InvalidArgument(f"invalid argument {text!r} for --default-ulimit flag") from None


def _truth(name: str, text: str) -> bool:
    from berth.cli.options import TRUTHS

    if text not in TRUTHS:
        raise InvalidArgument(f"invalid argument {text!r} for --{name} flag")
    return TRUTHS[text]


VERBS: dict[str, Verb] = {"serve": (FLAGS, serve)}
