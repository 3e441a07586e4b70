"""`berth serve`: run an engine in this process."""

from __future__ import annotations

import os
import sys

from berth.client.address import default_roots, parse
from berth.errors import Forbidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

FLAGS: tuple[Flag, ...] = (
    ("host", "H", "list", "Listen on unix://PATH or tcp://HOST:PORT (may be repeated)"),
    ("data-root", "", "string", "Directory of images, containers and volumes"),
    ("exec-root", "", "string", "Directory of what lives until a reboot"),
    ("registry-mirror", "", "list", "URL of a registry to ask before docker.io"),
    ("insecure-registry", "", "list", "Registry (HOST[:PORT] or CIDR) to talk to without TLS"),
    ("idle-exit", "", "int", "Leave after so many seconds without a client or a container"),
    ("ready-fd", "", "int", ""),
)


def serve(call: Call) -> int:
    """Run until a signal ends it."""
    if os.geteuid() != 0:
        raise Forbidden("start engine: root is needed (use sudo)")
    if sys.flags.no_site:  # the command starts without it; what an engine depends on lies there
        import site

        site.main()
    from pathlib import Path

    from berth import berthd

    options = call.options
    roots = default_roots()
    data_root = options.text("data-root", roots.data)
    exec_root = options.text("exec-root", roots.exec)
    hosts = options.all("host") or [f"unix://{exec_root}/berth.sock"]
    for host in hosts:
        parse(host)
    idle_s = options.number("idle-exit")
    berthd.main(
        berthd.Options(
            hosts=tuple(hosts),
            data_root=Path(data_root).absolute(),
            exec_root=Path(exec_root).absolute(),
            registry_mirrors=tuple(options.all("registry-mirror")),
            insecure_registries=tuple(options.all("insecure-registry")),
            idle_exit_s=float(idle_s) if idle_s else None,
            ready_fd=options.number("ready-fd") if options.given("ready-fd") else None,
        )
    )
    return 0


VERBS: dict[str, Verb] = {"serve": (FLAGS, serve)}
