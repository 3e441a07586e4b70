"""A network made ahead of its container: a clone that has to make one takes twice as long."""

from __future__ import annotations

import os

from berth.kernel import loopback, namespaces

OWN = "/proc/self/ns/net"


def make() -> int:
    """Return a new network namespace that no process is in, with `lo` up."""
    own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            loopback.bring_up()
            return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNET)
    finally:
        os.close(own)
