"""`checkpoint` and `restore`: their flags as the options of `berth.bundle`."""

from __future__ import annotations

import os

from berth.bundle import checkpointing
from berth.errors import InvalidArgument
from berth.oci_cli import lives
from berth.runtime.criu import CGROUP_MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci_cli.invocation import Invocation

SWITCHES = {
    name: name.replace("-", "_")
    for name in (
        "tcp-established",
        "ext-unix-sk",
        "shell-job",
        "file-locks",
        "auto-dedup",
        "lazy-pages",
    )
}
EMPTY_NAMESPACES = ("network",)


def do_checkpoint(call: Invocation) -> int:
    """Write the container's processes to files."""
    options = _options(call)
    folder, record = call.open()
    checkpointing.checkpoint(folder, record, options)
    return 0


def do_restore(call: Invocation) -> int:
    """Make a container of those files; unless told to detach stay until it ends."""
    from berth.bundle.restoring import Restoring

    options = _options(call)
    return lives.live(
        call,
        *lives.load(call),
        lambda folder, spec, bundle, how: Restoring(folder, spec, bundle, how, options),
        lambda folder, _: folder.forget_start(),
    )


def _options(call: Invocation) -> checkpointing.Options:
    given = call.options
    found = checkpointing.Options()
    found.images = os.path.abspath(given.text("image-path") or checkpointing.DEFAULT_FOLDER)
    if work := given.text("work-path"):
        found.work = os.path.abspath(work)
    found.switches = {key: given.on(flag) for flag, key in SWITCHES.items()}
    found.leave_running = given.on("leave-running")
    found.pre_dump = given.on("pre-dump")
    found.status_fd = given.number("status-fd", -1)
    found.manage_cgroups_mode = given.text("manage-cgroups-mode")
    if found.manage_cgroups_mode and found.manage_cgroups_mode not in CGROUP_MODES:
        raise InvalidArgument("Invalid manage cgroups mode")
    for name in given.all("empty-ns"):
        if name not in EMPTY_NAMESPACES:
            raise InvalidArgument(f'namespace "{name}" is not supported')
    found.lsm_profile = given.text("lsm-profile")
    found.lsm_mount_context = given.text("lsm-mount-context")
    _set_page_server(found, given.text("page-server"))
    found.parent = _parent(found.images, given.text("parent-path"))
    return found


def _set_page_server(options: checkpointing.Options, text: str) -> None:
    if not text:
        return
    address, colon, port = text.rpartition(":")
    if not address or not colon:
        raise InvalidArgument("Use --page-server ADDRESS:PORT to specify page server")
    if not port.isdecimal():
        raise InvalidArgument("Invalid port number")
    options.page_server = (address.strip("[]"), int(port))


def _parent(images: str, path: str) -> str:
    if not path:
        return ""
    if os.path.isabs(path):
        raise InvalidArgument("--parent-path must be relative")
    if not os.path.isdir(f"{images}/{path}"):
        raise InvalidArgument(f"invalid --parent-path: {images}/{path} is not a directory")
    return path
