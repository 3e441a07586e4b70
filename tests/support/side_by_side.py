"""How tests are shared out when several run at a time (``pytest -n``): by file, the longest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

# One after the other: the tier of one virtual machine, and those that take addresses and ports by number.
ONE = ("tests/vm/",)
TOGETHER = (
    "tests/system/test_networks.py",
    "tests/system/test_ipv6.py",
    "tests/system/test_links.py",
    "tests/system/test_network_configurations.py",
    "tests/system/test_bad_input.py",
    "tests/system/test_checkpoints.py",
    "tests/system/clients/test_compose.py",
)


class ByFile(LoadScopeScheduling):
    """Files in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def scope(nodeid: str) -> str:
    """Return what a test shares its process with, and its order there."""
    if nodeid.startswith(ONE):
        return "machine"
    path = nodeid.split("::", 1)[0]
    return "addresses" if path in TOGETHER else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    result = yield
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.nodeid))
    return result


def _rank(nodeid: str) -> int:
    order: Sequence[str] = ("machine", "addresses")
    found = scope(nodeid)
    if found in order:
        return order.index(found)
    return len(order) + (not found.startswith("tests/system/"))
