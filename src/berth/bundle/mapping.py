"""Id-mapped mounts: trees whose owners are shown as others, made by who has the privilege for it."""

from __future__ import annotations

import os

from berth.bundle import mounting
from berth.errors import Failed
from berth.kernel import mounts, namespaces
from berth.runtime.idmaps import id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.plan import Plan
    from berth.oci.runtime_spec import IdMapping


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
    return namespaces.new_user(id_map(uids), id_map(gids))
