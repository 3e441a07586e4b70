"""What nft(8) lists of the engine's tables is all that they are: read again, it is the same."""

from __future__ import annotations

import pytest

from berth.network.records import NetworkRequest
from support.networks import NAMES, Engine
from support.programs import find, run

# nft(8) has had a word for the target of an advertisement since 1.0.9.
NAMELESS = "@th,64,128 != @senders6"


def listed(family: str, table: str = NAMES.table) -> list[str]:
    done = run(find("nft"), "list", "table", family, table, check=True)
    assert done.err == ""
    return done.lines


@pytest.fixture
def crowded(engine: Engine) -> None:
    """Networks and ports of every kind."""
    engine.run(engine.service.create(NetworkRequest(name="six", ipv6=True)))
    engine.run(engine.service.create(NetworkRequest(name="inner", internal=True)))
    engine.connect("c1", (80, 8080), (81, 8081, "tcp", "127.0.0.1"), (53, 8053, "udp"))
    ports = ((80, 9080), (81, 9081, "tcp", "::1"), (82, 9082, "tcp", "2001:db8:51::1"))
    engine.connect("c2", *ports, network="six")


@pytest.mark.parametrize("family", ["ip", "ip6", "bridge"])
@pytest.mark.usefixtures("crowded")
def test_what_is_listed_is_the_same_when_it_is_read(family: str) -> None:
    lines = [line for line in listed(family) if NAMELESS not in line]
    text = "\n".join(lines).replace(f" {NAMES.table} ", " copy ")
    run(find("nft"), "-f", "-", stdin=text.encode(), check=True)
    again = "\n".join(listed(family, "copy")).replace(" copy ", f" {NAMES.table} ")
    assert again.splitlines() == lines


@pytest.mark.usefixtures("crowded")
def test_a_rule_that_only_asks_whether_a_port_is_published_is_listed_with_its_question() -> None:
    for family in ("ip", "ip6"):
        detours = [line for line in listed(family) if " dup to " in line]
        assert len(detours) == 2
        assert all("taken fib daddr type local" in line for line in detours)
