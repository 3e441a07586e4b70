"""The kernel tier's cgroup tests once more, where every controller is on version 2."""

from kernel.test_cgroups import *  # noqa: F403
