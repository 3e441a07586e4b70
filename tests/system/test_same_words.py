"""The same words to the docker CLI and to berth's own: the same output, errors and exit codes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

pytestmark = pytest.mark.berth_only

# What may differ: how each CLI names itself and its remedies, ids of what each of them made, moments.
NAMES = (
    ("Error response from daemon: ", ""),
    ("Error: ", ""),
    ("docker: ", ""),
    ("berth: ", ""),
    ("docker ", "berth "),
    ("'docker", "'berth"),
)
PATTERNS = (
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "SHORT"),
    (r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes)( ago)? *", "SOON "),
    (r"(CREATED|STATUS|Created) +", r"\1 "),  # as wide as the moments in other lines
    (r"  +PORTS", " PORTS"),
    (r"^hint: .*\n", ""),
    (r"^  shape  .*\n", ""),  # berth's own
    (r"^exit status 1\n?", ""),  # docker's own, after what went wrong
    (r'must be one of "config".*', "must be one of KINDS"),
    (r'must be one of "container".*', "must be one of KINDS"),
)


def normalised(text: str) -> str:
    """Return what both CLIs have to say in the same way."""
    for name, other in NAMES:
        text = text.replace(name, other)
    for pattern, other in PATTERNS:
        text = re.sub(pattern, other, text, flags=re.MULTILINE)
    return text


def told(outcome: Outcome) -> tuple[int, str, str]:
    return outcome.code, normalised(outcome.out), normalised(outcome.err).strip()


@pytest.fixture(scope="module")
def world(session_engine: EngineProcess) -> Iterator[EngineProcess]:
    """A few things to look at."""
    session_engine.remove_containers()
    yield from make_world(session_engine)


def make_world(engine: EngineProcess) -> Iterator[EngineProcess]:
    """A container that runs, one that ended, one that is new, a volume, a network, a second tag."""
    words = (
        "tag busybox:latest busybox:other",
        "volume create same-volume --label a=b",
        "network create same-network --label a=b",
        "run -d --name same-up --network none -l a=b -l c=d -e X=1 -v same-volume:/v busybox sleep 999",
        "run --name same-down --network none busybox sh -c 'exit 3'",
        "create --name same-new --network none -p 8080:80 busybox true",
    )
    for line in words:
        command, _, script = line.partition(" sh -c ")
        engine.docker(*command.split(), *(("sh", "-c", script.strip("'")) if script else ()))
    yield engine
    engine.remove_containers()
    engine.docker("volume", "rm", "same-volume")
    engine.docker("network", "rm", "same-network")
    engine.docker("rmi", "busybox:other")
    engine.wait_settled()


LINES = """
ps
ps -a
ps -aq
ps -a --no-trunc
ps -as
ps -n 1
ps -l
ps --format json
ps -a --format {{.Names}}\\t{{.Image}}\\t{{.Labels}}\\t{{.Mounts}}\\t{{.State}}\\t{{.LocalVolumes}}
ps -a --format table\\ {{.Names}}\\t{{.Status}}
ps -a --filter name=same-down
ps -a --filter exited=3
ps --filter nonsense=1
ps --filter nonsense
ps --nonsense
images
images -a
images -q
images --no-trunc
images --digests
images busybox
images busybox:other
images --format json
images --format {{.Repository}}:{{.Tag}}
images --format table\\ {{.ID}}\\t{{.Repository}}
images --filter dangling=true
images --filter reference=busybox:o*
history busybox
history -q busybox
history --no-trunc busybox
history --human=false busybox
history --format json busybox
history nothing
volume ls
volume ls -q
volume ls --format json
volume ls --filter label=a=b
volume inspect same-volume
volume inspect nothing
volume rm nothing
network ls
network ls -q --no-trunc
network ls --filter name=same
network ls --format json
network inspect nothing
network rm nothing
inspect nothing
inspect --type container nothing
inspect --type image nothing
inspect --format {{.Name}} same-up same-down
inspect --format {{json\\ .Config.Labels}} same-up
inspect --format {{.State.Status}} nothing same-up
inspect --type nonsense same-up
inspect same-up
inspect busybox
container inspect nothing
image inspect nothing
logs nothing
top same-up
top same-down
port same-up
port same-up 80
port nothing
start nothing
stop nothing
restart nothing
kill nothing
kill same-down
kill -s NONSENSE same-up
pause same-down
unpause same-up
pause nothing
wait same-down
wait nothing
rm nothing
rm -f nothing
rm same-up
rename same-up same-down
rename nothing other
exec nothing true
exec same-down true
exec same-up sh -c exit\\ 7
exec same-up nonsense
attach same-down
attach nothing
update same-up
update --memory 100m nothing
update --memory 1k same-up
tag nothing other
tag busybox BIG
rmi nothing
save nothing
diff nothing
export nothing
events --since 1 --until 2
events --since nonsense
system df
system df --format json
create
run
run --nonsense
run nothing:latest --pull
run --pull never nothing:latest
run -d --name same-up busybox true
run --rm --restart always busybox true
run --memory 1k busybox true
run --memory nonsense busybox true
run --rm --network none busybox nonsense
run --rm --network none busybox /etc
start
stop
rm
logs
exec same-up
ps x
history
history busybox other
port
port same-up 80 81
tag busybox
info x
version x
events x
rename same-up
diff
cp x
commit
volume
network
network nonsense
container
nonsense
logs same-down
logs --tail 0 same-up
logs --tail nonsense same-up
logs --since nonsense same-up
wait same-down same-down
stats --no-stream --format {{.Name}} same-up
stats --no-stream nothing
top same-up -o pid,comm
top same-up nonsense
version --format {{.Server.Os}}
info --format {{.Driver}}
images --filter nonsense=1
images nothing
volume create same-volume
volume create --driver nope x
volume create !
volume ls --filter nonsense=1
network create same-network
network create --driver nope x
network create --subnet nonsense x
network create
network ls --filter nonsense=1
kill -s 99 same-up
create --pull nonsense busybox
create --name ! busybox true
run -it busybox true
run -d --name ! busybox true
run -v nonsense:relative busybox true
run -p nonsense busybox true
run -p 80:99999 busybox true
run --mount type=nope,target=/x busybox true
run --mount nonsense busybox true
run --mount type=bind,source=/nope,target=/x busybox true
run --ulimit nonsense busybox true
run --ulimit nofile=5:1 busybox true
run --rm --network nope busybox true
run --cpus 1000 busybox true
run --cpus nope busybox true
run --rm --network none --user nobody2 busybox true
run -w relative busybox true
run --env-file /nope busybox true
run --label-file /nope busybox true
run --security-opt nope busybox true
run --cap-add NOPE busybox true
run --restart nope busybox true
run --restart on-failure:x busybox true
run --log-driver nope busybox true
run --pid container:nope busybox true
run --stop-signal NOPE busybox true
run --add-host nonsense busybox true
run --attach nonsense busybox true
run --expose nonsense busybox true
run -m 100m --memory-swap 1m busybox true
run --shm-size nope busybox true
run --isolation hyperv busybox true
run --ipc nope busybox true
run --userns nope busybox true
run --uts nope busybox true
run --pull
run -d --rm --cidfile /proc/version busybox true
exec -u nobody2 same-up true
exec -w /nope same-up pwd
exec -d same-up true
exec --env-file /nope same-up true
exec -it same-up true
start same-up
stop -t x same-up
restart -t x same-up
rmi -f nothing
import /nope
load -i /nope
load
save
save -o /nope/x busybox
export -o /nope/x same-up
cp same-up:/nope .
cp /nope/nope same-up:/
cp - same-up:/bin/busybox
cp same-up:/x same-down:/y
commit nothing
commit -c NOPE same-down
commit same-down BIG
"""


def words_of(line: str) -> list[str]:
    return [word.replace("\\ ", " ") for word in re.split(r"(?<!\\) ", line)]


@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_both_command_lines_say_the_same(world: EngineProcess, line: str) -> None:
    words = words_of(line)
    assert told(world.berth(*words)) == told(world.docker(*words))
