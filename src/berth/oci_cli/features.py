"""`features`: what this runtime does on this kernel (runtime-spec, features.md)."""

from __future__ import annotations

import json
import os

from berth.bundle import attributes, checks, gathering, labels, options, systemd
from berth.kernel import capabilities, cgroups, namespaces
from berth.runtime import hooks
from berth.runtime.seccomp import actions, compiler, conditions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci_cli.invocation import Invocation


def do_features(call: Invocation) -> int:
    """Print it."""
    del call
    print(json.dumps(document(), indent=4))
    return 0


def document() -> dict[str, object]:
    """Return the features document: only what the kernel has here."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": list(hooks.KINDS),
        "mountOptions": options.known_words(),
        "linux": {
            "namespaces": [
                kind
                for kind, (_, name) in namespaces.NAMESPACES.items()
                if os.path.exists(f"/proc/self/ns/{name}")
            ],
            "capabilities": list(capabilities.NAMES[: capabilities.last_cap() + 1]),
            "cgroup": _groups(),
            "seccomp": {
                "enabled": os.path.exists("/proc/sys/kernel/seccomp"),
                "actions": list(actions.VALUES),
                "operators": [*conditions.OPERATORS],
                "archs": list(compiler.ARCHITECTURES),
                "knownFlags": list(gathering.FILTER_FLAGS),
                "supportedFlags": list(gathering.FILTER_FLAGS),
            },
            "apparmor": {"enabled": labels.has_apparmor()},
            "selinux": {"enabled": labels.has_selinux()},
            "intelRdt": {"enabled": False},
            "memoryPolicy": _memory_policy(),
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.berth.io-classes": ",".join(attributes.IO_CLASSES)},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _memory_policy() -> dict[str, list[str]]:
    if not os.path.exists(checks.NUMA):
        return {}
    return {"modes": [*attributes.MEMORY_MODES], "flags": [*attributes.MEMORY_FLAGS]}


def _groups() -> dict[str, object]:
    found = cgroups.detect().found
    return {
        "v1": any(not hierarchy.unified for hierarchy in found),
        "v2": any(hierarchy.unified for hierarchy in found),
        "systemd": systemd.is_running(),
        "systemdUser": systemd.is_running() and os.geteuid() != 0,
        "rdma": any("rdma" in hierarchy.controllers for hierarchy in found),
    }
