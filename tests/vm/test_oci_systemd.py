"""The system tests of `berth-oci --systemd-cgroup` once more, where every controller is on version 2."""

from system.test_oci_systemd import *  # noqa: F403
