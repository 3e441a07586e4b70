"""The ids of a new user namespace, given to it from outside."""

from __future__ import annotations

import os

from berth.errors import Failed, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.plan import Plan
    from berth.oci.runtime_spec import IdMapping

HELPERS = {"uid": "newuidmap", "gid": "newgidmap"}
HELPER_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin")


def give(plan: Plan, pid: int) -> None:
    """Give the user namespace of a process its ids."""
    for kind, table in (
        ("uid", plan.linux.get("uidMappings") or []),
        ("gid", plan.linux.get("gidMappings") or []),
    ):
        lines = [f"{row['containerID']} {row['hostID']} {row['size']}" for row in table]
        try:
            _write(pid, f"{kind}_map", "\n".join(lines))
        except PermissionError as error:
            if os.geteuid() == 0:
                raise Failed(f"failed to write {kind}_map: {error.strerror}") from error
            _map_by_helper(kind, pid, table)
        except OSError as error:
            raise Failed(f"failed to write {kind}_map {lines}: {error.strerror}") from error


def _write(pid: int, name: str, text: str) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _map_by_helper(kind: str, pid: int, table: list[IdMapping]) -> None:
    """Map as an ordinary user: one's own id alone, or with the program that is privileged for it."""
    own = os.geteuid() if kind == "uid" else os.getegid()
    places = (f"{folder}/{HELPERS[kind]}" for folder in HELPER_FOLDERS)
    program = next((place for place in places if os.access(place, os.X_OK)), "")
    if len(table) == 1 and table[0]["size"] == 1 and table[0]["hostID"] == own:
        if kind == "gid":
            _write(pid, "setgroups", "deny")
        _write(pid, f"{kind}_map", f"{table[0]['containerID']} {own} 1")
        return
    if not program:
        raise Unsupported(f"{HELPERS[kind]} is needed to map these ids, and is not installed")
    numbers = [
        str(number) for row in table for number in (row["containerID"], row["hostID"], row["size"])
    ]
    running = os.posix_spawn(program, [program, str(pid), *numbers], {})
    _, status = os.waitpid(running, 0)
    if status:
        raise Failed(
            f"{program} refused to map ids: exit status {os.waitstatus_to_exitcode(status)}"
        )
