"""`exec`: the process that is to join, from a document or from flags."""

from __future__ import annotations

import copy
import os

from berth.bundle import joining
from berth.errors import InvalidArgument
from berth.oci_cli import bundles, foreground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.records import Record
    from berth.cli.options import Options
    from berth.oci.runtime_spec import Capabilities, Process
    from berth.oci_cli.invocation import Invocation


def do_exec(call: Invocation) -> int:
    """Run a program in a container; return its exit code unless detached."""
    folder, record = call.look()
    given = call.options
    process = _process(record, given, call.arguments[1:])
    detached = given.on("detach")
    console = given.text("console-socket")
    if detached and process.get("terminal") and not console:
        raise InvalidArgument(
            "cannot allocate tty if berth-oci will detach without setting console socket"
        )
    if console and not (detached and process.get("terminal")):
        raise InvalidArgument(
            "cannot use console socket if berth-oci will not detach or allocate tty"
        )
    options = joining.Options()
    options.console_socket = os.path.abspath(console) if console else ""
    options.pid_file = os.path.abspath(given.text("pid-file")) if given.text("pid-file") else ""
    options.preserve_fds = given.number("preserve-fds")
    options.groups = given.all("cgroup")
    options.ignore_paused = given.on("ignore-paused")
    pid, terminal = joining.Joining(folder, record, process, options).make()
    if detached:
        return 0
    stay = foreground.Foreground(pid, terminal)
    try:
        return stay.run()
    finally:
        stay.close()


def _process(record: Record, given: Options, arguments: list[str]) -> Process:
    own: Process = copy.deepcopy(record.get("spec", {}).get("process", {}))
    if path := given.text("process"):
        return _restricted(bundles.read_process(path), own)
    if not arguments:
        raise InvalidArgument("process args cannot be empty")
    process = own
    process["args"] = arguments
    process["terminal"] = given.on("tty")
    process.pop("consoleSize", None)
    if cwd := given.text("cwd"):
        process["cwd"] = cwd
    if label := given.text("apparmor"):
        process["apparmorProfile"] = label
    if label := given.text("process-label"):
        process["selinuxLabel"] = label
    process["env"] = [*process.get("env", []), *given.all("env")]
    if given.given("no-new-privs"):
        process["noNewPrivileges"] = given.on("no-new-privs")
    _set_user(process, given)
    _add_capabilities(process, given.all("cap"))
    return process


def _restricted(process: Process, own: Process) -> Process:
    """Give a process, where its document says nothing of them, the container's restrictions."""
    if "capabilities" not in process and "capabilities" in own:
        process["capabilities"] = own["capabilities"]
    if not process.get("rlimits"):
        process["rlimits"] = own.get("rlimits", [])
    if not process.get("apparmorProfile"):
        process["apparmorProfile"] = own.get("apparmorProfile", "")
    if not process.get("selinuxLabel"):
        process["selinuxLabel"] = own.get("selinuxLabel", "")
    return process


def _set_user(process: Process, given: Options) -> None:
    user = process.setdefault("user", {})
    if text := given.text("user"):
        uid, colon, gid = text.partition(":")
        if not uid.isdecimal() or (colon and not gid.isdecimal()):
            raise InvalidArgument(f"parsing {text!r} as int for uid failed")
        user["uid"] = int(uid)
        if colon:
            user["gid"] = int(gid)
    for text in given.all("additional-gids"):
        if not text.isdecimal():
            raise InvalidArgument(f"parsing {text!r} as int for gid failed")
        user["additionalGids"] = [*user.get("additionalGids", []), int(text)]


def _add_capabilities(process: Process, names: list[str]) -> None:
    """Add to the bounding, effective and permitted sets; to the ambient one where it has inheritable ones."""
    if not names:
        return
    wanted: Capabilities = process.setdefault("capabilities", {})
    wanted["bounding"] = [*wanted.get("bounding", []), *names]
    wanted["effective"] = [*wanted.get("effective", []), *names]
    wanted["permitted"] = [*wanted.get("permitted", []), *names]
