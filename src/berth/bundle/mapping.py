"""Id-mapped mounts: trees whose owners are shown as others, made by who has the privilege for it."""

from __future__ import annotations

import os

from berth.bundle import mounting
from berth.errors import Failed
from berth.kernel import mounts, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.plan import Plan
    from berth.oci.runtime_spec import IdMapping

KILL = 9


def open_trees(plan: Plan) -> list[int]:
    """Return the trees of all id-mapped mounts of a plan, in order."""
    trees = []
    for entry in plan.entries:
        if not entry.is_mapped:
            continue
        uids = entry.spec.get("uidMappings") or plan.linux.get("uidMappings") or []
        gids = entry.spec.get("gidMappings") or plan.linux.get("gidMappings") or []
        os.chdir(plan.bundle)
        mounting.open_source(entry)
        mounting.open_tree(entry)
        namespace = _namespace(uids, gids)
        try:
            mounts.mount_setattr(
                entry.tree,
                attr_set=mounts.MOUNT_ATTR_IDMAP,
                userns_fd=namespace,
                recursive="ridmap" in entry.options.extensions,
            )
        except OSError as error:
            raise Failed(
                f"failed to set MOUNT_ATTR_IDMAP on {entry.spec.get('source')}: {error.strerror}"
                " (maybe the filesystem used doesn't support idmap mounts on this kernel?)"
            ) from error
        finally:
            os.close(namespace)
        trees.append(entry.tree)
    return trees


def _namespace(uids: list[IdMapping], gids: list[IdMapping]) -> int:
    """Return a user namespace with the maps; the process that it is made with ends at once."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    fork = namespaces.Clone(namespaces.CLONE_NEWUSER)
    pid = fork.make()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    fork.check(pid)
    try:
        for name, table in (("uid_map", uids), ("gid_map", gids)):
            lines = [f"{row['containerID']} {row['hostID']} {row['size']}" for row in table]
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write("\n".join(lines))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(pid, 0)
