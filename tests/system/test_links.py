"""Links between containers of the default network: their names, and what becomes of them."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]


@pytest.fixture
def linked(engine: EngineProcess) -> EngineProcess:
    """`web`, which calls `database` by that name and by `db`."""
    for args in (("--name", "database"), ("--name", "web", "--link", "database:db")):
        more = ("--link", "database") if "web" in args else ()
        done = engine.docker("run", "-d", *args, *more, "busybox", "sleep", "600")
        assert done.code == 0, str(done)
    return engine


def names(engine: EngineProcess) -> list[list[str]]:
    _, found = engine.request("GET", "/containers/json")
    return sorted(sorted(container["Names"]) for container in found)


def links(engine: EngineProcess) -> list[str] | None:
    found = engine.inspect("web")["HostConfig"]["Links"]
    return sorted(found) if found else found


def hosts(engine: EngineProcess) -> str:
    return engine.docker("exec", "web", "cat", "/etc/hosts").out


def test_a_link_is_a_name_of_the_container_it_leads_to(linked: EngineProcess) -> None:
    assert names(linked) == [["/database", "/web/database", "/web/db"], ["/web"]]
    assert links(linked) == ["/database:/web/database", "/database:/web/db"]
    assert linked.inspect("web/db")["Name"] == "/database"


def test_a_link_follows_a_container_to_its_new_name(linked: EngineProcess) -> None:
    assert linked.docker("rename", "database", "store").code == 0
    assert links(linked) == ["/store:/web/database", "/store:/web/db"]
    assert linked.docker("restart", "-t", "0", "web").code == 0
    assert "\tdb " in hosts(linked)


def test_a_link_is_removed_and_its_containers_stay(cli: Cli, linked: EngineProcess) -> None:
    done = cli("rm", "--link", "web/db")
    assert (done.code, done.out) == (0, "web/db\n")
    assert names(linked) == [["/database", "/web/database"], ["/web"]]
    assert "\tdb " not in hosts(linked)
    assert "\tdatabase " in hosts(linked)
    gone = cli("rm", "--link", "web/db")
    assert gone.code == 1
    assert "No such container: web/db" in gone.err


def test_a_containers_own_name_is_no_link(cli: Cli, linked: EngineProcess) -> None:
    done = cli("rm", "--link", "web")
    assert done.code == 1
    assert "Conflict, cannot remove the default link name of the container" in done.err
    assert linked.inspect("web")["State"]["Running"]


@pytest.mark.berth_only  # the reference keeps to its own pace when it starts one again
@pytest.mark.parametrize(
    "spoil",
    [
        "printf '\\377' >> /etc/hosts",  # no UTF-8
        "dd if=/dev/zero of=/etc/hosts bs=1 count=1 seek=64G",
    ],
    ids=["bytes", "size"],
)
def test_what_a_container_writes_to_its_hosts_stops_no_other(
    linked: EngineProcess, spoil: str
) -> None:
    assert linked.docker("exec", "web", "sh", "-c", spoil).code == 0
    for verb in ("stop", "start", "restart"):
        flags = () if verb == "start" else ("-t", "0")
        done = linked.docker(verb, *flags, "database")
        assert done.code == 0, str(done)
    linked.docker("update", "--restart", "always", "database")
    os.kill(linked.inspect("database")["State"]["Pid"], signal.SIGKILL)
    wait_for(
        lambda: (
            linked.inspect("database")["RestartCount"] == 1
            and linked.inspect("database")["State"]["Running"]
        ),
        "it runs again",
    )
    made = linked.docker("network", "create", "more")
    assert made.code == 0, str(made)
    for verb in ("connect", "disconnect"):
        assert linked.docker("network", verb, "more", "web").code == 0
    assert linked.docker("network", "rm", "more").code == 0
    assert linked.docker("rm", "--link", "web/db").code == 0
    if "377" in spoil:
        shown = linked.docker("exec", "web", "cat", "/etc/hosts").raw
        address = linked.inspect("database")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        assert b"\xff" in shown
        assert f"{address}\tdatabase ".encode() in shown
        assert b"\tdb " not in shown
    else:
        head = linked.docker("exec", "web", "head", "-c", "4000", "/etc/hosts").raw
        assert b"\tdb " not in head


def test_a_container_that_has_made_its_hosts_huge_starts_again(engine: EngineProcess) -> None:
    script = "cat /etc/hosts | wc -l; dd if=/dev/zero of=/etc/hosts bs=1 count=1 seek=64G"
    engine.docker("run", "--name", "large", "busybox", "sh", "-c", script)
    done = engine.docker("start", "-a", "large")
    assert done.code == 0, str(done)
    first, second = engine.docker("logs", "large").out.split()
    assert first == second


LEASE = """
import fcntl, os, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
for name in ("hosts", "resolv.conf"):
    fcntl.fcntl(os.open(f"/etc/{name}", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("leased", flush=True)
signal.pause()
"""


def test_who_has_a_lease_on_shared_files_holds_up_nobody(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "owner", "busybox", "sleep", "600")
    shares = ("--name", "holder", "--network", "container:owner")
    engine.docker("run", "-d", *shares, "host", "python3", "-c", LEASE)
    wait_for(lambda: engine.docker("logs", "holder").out == "leased\n", "it has them")
    before = time.monotonic()
    assert engine.docker("restart", "-t", "0", "owner").code == 0
    assert time.monotonic() - before < 20
    name = engine.inspect("owner")["Id"][:12]
    assert f"\t{name}\n" in engine.docker("exec", "owner", "cat", "/etc/hosts").out
