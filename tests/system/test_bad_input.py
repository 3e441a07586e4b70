"""What cannot be: Docker's exit code, its words in one line, and nothing half-made.

The codes and words were taken from dockerd 20.10 with the docker CLI, and hold there, too:
`BERTH_TEST_REFERENCE=dockerd`. Where newer Dockers say it in other words, only what both say is here.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

CPUS = os.cpu_count()
# Words after `run`; the exit code; what is said.
REFUSED = [
    ("Busybox true", 125, "invalid reference format: repository name (library/Busybox) must be lowercase"),
    ("busybox:bad:tag true", 125, "invalid reference format"),
    ("--pull never no-such-image:1 true", 125, "No such image: no-such-image:1"),
    ("--pull nonsense busybox true", 125, "invalid pull option: 'nonsense': must be one of"),
    ("--no-such-flag busybox true", 125, "unknown flag: --no-such-flag"),
    ("-m much busybox true", 125, "for \"-m, --memory\" flag: invalid size: 'much'"),
    ("-m 1m busybox true", 125, "Minimum memory limit allowed is 6MB"),
    ("-m 64m --memory-swap 32m busybox true", 125, "memoryswap limit should be larger than memory limit"),
    ("-m 64m --memory-reservation 128m busybox true", 125, "can not be less than memory reservation limit"),
    ("--memory-swappiness 101 busybox true", 125, "alid memory swappiness range is 0-100"),
    ("--cpus many busybox true", 125, "invalid argument \"many\" for \"--cpus\" flag"),
    (f"--cpus {CPUS}.5 busybox true", 125, f"as there are only {CPUS} CPUs available"),
    ("--cpus -1 busybox true", 125, f"ange of CPUs is from 0.01 to {CPUS}.00, as there are only {CPUS}"),
    ("--cpuset-cpus 4096 busybox true", 125, "4096"),
    ("--cpuset-cpus x busybox true", 125, "nvalid value x for cpuset cpus"),
    ("--oom-score-adj 2000 busybox true", 125, "nvalid value 2000, range for oom score adj is [-1000, 1000]"),
    ("--pids-limit x busybox true", 125, "invalid argument \"x\" for \"--pids-limit\" flag"),
    ("-p nonsense busybox true", 125, "invalid containerPort: nonsense"),
    ("-p 80:99999 busybox true", 125, "invalid containerPort: 99999"),
    ("-p 1.2.3:80:80 busybox true", 125, "1.2.3"),
    ("-v relative/path:/x busybox true", 125, "includes invalid characters for a local volume name"),
    ("-v /tmp:/x:nope busybox true", 125, "invalid mode: nope"),
    ("-v /tmp:relative busybox true", 125, "invalid mount path: 'relative' mount path must be absolute"),
    ("-v /tmp:/x -v /var:/x busybox true", 125, "Duplicate mount point: /x"),
    ("--mount type=bind,source=/no/such,target=/x busybox true", 125, "source path does not exist: /no/such"),
    ("--mount type=nope,target=/x busybox true", 125, "config for type \"nope\": mount type unknown"),
    ("--tmpfs relative busybox true", 125, "invalid mount path: 'relative' mount path must be absolute"),
    ("--ulimit nofile=2:1 busybox true", 125, "soft limit must be less than or equal to hard limit: 2 > 1"),
    ("-w relative busybox true", 125, "'relative' is invalid, it needs to be an absolute path"),
    ("--name bad/name busybox true", 125, "(bad/name), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("--cap-add NO_SUCH busybox true", 125, "\"CAP_NO_SUCH\""),
    ("--privileged --cap-drop NO_SUCH busybox true", 125, "\"CAP_NO_SUCH\""),
    ("--security-opt nonsense=1 busybox true", 125, "invalid --security-opt 2: \"nonsense=1\""),
    ("--restart nope busybox true", 125, "nope"),
    ("--rm --restart always busybox true", 125, "options: cannot specify both --restart and --rm"),
    ("--stop-signal NOPE busybox true", 125, "nvalid signal: NOPE"),
    ("--volumes-from nope busybox true", 125, "No such container: nope"),
    ("--env-file /no/such busybox true", 125, "open /no/such: no such file or directory"),
    ("--sysctl kernel.nope=1 busybox true", 125, "sysctl 'kernel.nope=1' is not"),
    ("--health-cmd true --health-interval 1us busybox true", 125, "cannot be less than 1ms"),
    ("-it busybox true", 1, "the input device is not a TTY"),
]  # fmt: skip
# The container is there afterwards: what is wrong shows at its start only.
NOT_STARTED = [
    ("busybox no-such-program", 127, "exec: \"no-such-program\": executable file not found in $PATH"),
    ("busybox /no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
    ("busybox /bin/unexecutable", 126, "exec: \"/bin/unexecutable\": permission denied"),
    ("busybox /etc", 126, "exec: \"/etc\": "),
    ("--entrypoint /no/such busybox", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
    ("-u nobody-here busybox true", 125, "unable to find user nobody-here: no matching entries in passwd"),
    ("-u root:none-here busybox true", 125, "unable to find group none-here: no matching entries in group"),
    ("--group-add none-here busybox true", 125, "nable to find group none-here: no matching entries"),
    ("--network no-such-network busybox true", 125, "network no-such-network not found"),
    ("--network container:nope busybox true", 125, "No such container: nope"),
]  # fmt: skip


def one_line(done: Outcome) -> str:
    """Return what was said, which is one line beside the docker CLI's remarks."""
    remarks = (
        "See 'docker",
        "Run 'docker",
        "Run 'berth",
        "See 'berth",
        "hint: ",
        "Usage:",
        "Unable to find",
    )
    lines = [line for line in done.err.splitlines() if line and not line.startswith(remarks)]
    assert len(lines) == 1, str(done)
    return lines[0]


def containers(engine: EngineProcess) -> list[tuple[str, str]]:
    listed = engine.request("GET", "/containers/json?all=1")[1]
    assert isinstance(listed, list)
    return [(found["Names"][0], found["State"]) for found in listed]


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_cannot_be_is_refused_and_not_made(
    cli: Cli, engine: EngineProcess, words: str, code: int, said: str
) -> None:
    done = cli("run", *words.split())
    assert done.code == code, str(done)
    assert said in one_line(done)
    assert done.out == ""
    assert containers(engine) == []


@pytest.mark.parametrize(("words", "code", "said"), NOT_STARTED, ids=lambda v: str(v)[:40])
def test_what_cannot_be_started_is_made_and_not_more(
    cli: Cli, engine: EngineProcess, words: str, code: int, said: str
) -> None:
    network = () if "--network" in words else ("--network", "none")
    done = cli("run", "--name", "bad", *network, *words.split())
    assert done.code == code, str(done)
    assert said in one_line(done)
    assert containers(engine) == [("/bad", "created")]
    assert cli("rm", "bad").code == 0


def test_a_taken_name_is_a_conflict_that_names_who_has_it(cli: Cli, engine: EngineProcess) -> None:
    first = cli("create", "--name", "taken", "busybox", "true").out.strip()
    done = cli("run", "--name", "taken", "busybox", "true")
    assert done.code == 125
    assert (
        f'Conflict. The container name "/taken" is already in use by container "{first}". You have to'
        " remove (or rename) that container to be able to reuse that name." in one_line(done)
    )
    cli("create", "--name", "other", "busybox", "true")
    renamed = cli("rename", "other", "taken")
    assert renamed.code == 1
    assert f'The container name "/taken" is already in use by container "{first}"' in renamed.err
    assert {name for name, _ in containers(engine)} == {"/taken", "/other"}


def test_a_taken_port_is_refused_and_the_container_can_be_started_later(
    cli: Cli, engine: EngineProcess
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        flags = ("-p", f"127.0.0.1:{port}:80")
        if engine.docker("run", "--rm", *flags, "busybox", "true").code == 0:
            pytest.skip("the reference lives in a network namespace of its own")
        done = cli("run", "-d", "--name", "late", *flags, "busybox", "sleep", "600")
        assert done.code == 125
        assert "driver failed programming external connectivity on endpoint late" in done.err
        assert f"{port}" in done.err
        assert "address already in use" in done.err
        assert containers(engine) == [("/late", "created")]
    assert cli("start", "late").code == 0
    other = cli("run", "-d", "--name", "other", *flags, "busybox", "sleep", "600")
    assert other.code == 125
    assert f"Bind for 127.0.0.1:{port} failed: port is already allocated" in other.err


def test_the_first_free_port_of_a_range_is_taken(cli: Cli, engine: EngineProcess) -> None:
    flags = ("-d", "-p", "127.0.0.1:47080-47081:80")
    assert cli("run", *flags, "--name", "one", "busybox", "sleep", "600").code == 0
    assert cli("run", *flags, "--name", "two", "busybox", "sleep", "600").code == 0
    assert [cli("port", name).out for name in ("one", "two")] == [
        "80/tcp -> 127.0.0.1:47080\n",
        "80/tcp -> 127.0.0.1:47081\n",
    ]
    third = cli("run", *flags, "--name", "three", "busybox", "sleep", "600")
    assert third.code == 125
    assert "all ports are allocated" in third.err


def test_another_platform_is_not_what_is_here(cli: Cli, engine: EngineProcess) -> None:
    done = cli("run", "--platform", "linux/riscv64", "--pull", "never", "busybox", "true")
    assert done.code == 125
    assert "image with reference busybox was found but" in one_line(done)
    assert "linux/riscv64" in done.err
    done = cli("run", "--platform", "not/a/plat/form", "busybox", "true")
    assert done.code == 125
    assert "not/a/plat/form" in done.err
    assert containers(engine) == []


def test_bad_commands_end_with_their_codes(cli: Cli, engine: EngineProcess) -> None:
    """Those beside `run`; both command lines were compared word by word elsewhere."""
    cli("run", "-d", "--name", "up", "--network", "none", "busybox", "sleep", "600")
    for words, code, said in (
        ("nonsense", 1, "nonsense"),
        ("exec up /bin/unexecutable", 126, "permission denied"),
        (
            "exec -u nobody-here up true",
            1,
            "unable to find user nobody-here: no matching entries in passwd",
        ),
        ("kill -s NONSENSE up", 1, "nvalid signal: NONSENSE"),
        ("kill -s 99 up", 1, "The linux daemon does not support signal 99"),
        ("save no-such", 1, "No such image: no-such"),
        ("save busybox:no-such", 1, "reference does not exist"),
        ("ps -a --filter exited=x", 1, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("ps --filter nonsense=1", 1, "nvalid filter 'nonsense'"),
        ("images --filter dangling=x", 1, "nvalid filter 'dangling=[x]'"),
        ("volume ls --filter dangling=maybe", 1, "nvalid filter 'dangling=[maybe]'"),
        ("network ls --filter dangling=maybe", 1, "nvalid filter 'dangling=[maybe]'"),
        ("volume prune -f --filter all=maybe", 1, "nvalid filter 'all=[maybe]'"),
        ("ps --filter is-task=maybe", 1, "nvalid filter 'is-task=[maybe]'"),
        ("rename up up", 1, "Renaming a container with the same name as its current name"),
        ("rename up !", 1, "Error when allocating new name: Invalid container name ("),
        ("network disconnect no-such no-such", 1, "No such container: no-such"),
        ("inspect no-such", 1, "o such object: no-such"),
        ("cp up:/no/such -", 1, "Could not find the file /no/such in container up"),
        ("tag busybox BAD", 1, "must be lowercase"),
        ("rmi no-such", 1, "No such image: no-such"),
        ("update --memory 1m up", 1, "Minimum memory limit allowed is 6MB"),
    ):
        done = cli(*words.split())
        assert done.code == code, str(done)
        assert said in done.err + done.out, str(done)
        assert "Traceback" not in done.err
    assert json.loads(cli("inspect", "up").out)[0]["State"]["Running"] is True


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/images/json", "dangling"),
        ("GET", "/volumes", "dangling"),
        ("GET", "/networks", "dangling"),
        ("GET", "/containers/json", "is-task"),
        ("POST", "/images/prune", "dangling"),
        ("POST", "/volumes/prune", "all"),
    ],
)
@pytest.mark.parametrize("nothing", [[], {}])
def test_a_boolean_filter_without_a_value_is_refused(
    engine: EngineProcess, method: str, path: str, key: str, nothing: object
) -> None:
    status, answer = engine.request(method, f"{path}?filters={quote(json.dumps({key: nothing}))}")
    assert (status, answer["message"]) == (400, f"invalid filter '{key}'")  # type: ignore[index]


def test_other_filters_without_a_value_are_none(engine: EngineProcess) -> None:
    made = engine.docker("create", "--name", "box", "busybox", "true").out.strip()
    for key in ("label", "name", "status", "exited"):
        path = f"/containers/json?all=1&filters={quote(json.dumps({key: []}))}"
        status, found = engine.request("GET", path)
        assert (status, [c["Id"] for c in found]) == (200, [made])  # type: ignore[attr-defined]
    filters = quote(json.dumps({"type": [], "container": []}))
    until = engine.request("GET", "/info")[1]["SystemTime"]  # type: ignore[index]
    _, _, data = engine.exchange("GET", f"/events?since=1&until={until}&filters={filters}")
    assert b'"Action":"create"' in data


@pytest.mark.berth_only  # others take some of these
@pytest.mark.parametrize(
    "pool",
    [
        {"Subnet": ":x"},
        {"IPRange": "x"},
        {"Gateway": "x"},
        {"Gateway": ":x"},
        {"Subnet": "10.99.6.0/24", "IPRange": "x"},
    ],
)
def test_ranges_of_a_network_that_are_none_are_refused(
    engine: EngineProcess, pool: dict[str, str]
) -> None:
    body = {"Name": "bad", "IPAM": {"Config": [pool]}}
    status, answer = engine.request("POST", "/networks/create", body)
    assert status == 400
    assert answer["message"].startswith("invalid network config:\ninvalid ")  # type: ignore[index]


def test_a_login_where_no_registry_can_be_is_refused(engine: EngineProcess) -> None:
    body = {"username": "x", "password": "y", "serveraddress": "[nowhere"}
    status, answer = engine.request("POST", "/auth", body)
    assert status in (400, 500)  # of Docker's both, by its version
    assert "internal error" not in answer["message"]  # type: ignore[index]
