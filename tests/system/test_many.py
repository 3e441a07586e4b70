"""Five hundred containers at once, and output as fast as it comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from support.waiting import wait_for

if TYPE_CHECKING:
    from support.engine import EngineProcess

MANY = 500
LOG_BYTES = 300_000_000


def test_five_hundred_containers_run_at_once(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    host = {"NetworkMode": "none"}
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "echo up; exec sleep 600"], "HostConfig": host}

    def live(number: int) -> int:
        status, made = engine.request("POST", f"/containers/create?name=many{number}", body)
        assert status == 201, made
        assert isinstance(made, dict)
        return engine.request("POST", f"/containers/{made['Id']}/start")[0]

    def logs(number: int) -> bytes:
        return engine.exchange("GET", f"/containers/many{number}/logs?stdout=1")[2][8:]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(live, range(MANY))) == [204] * MANY
        _, found = engine.request("GET", "/containers/json")
        assert isinstance(found, list)
        assert [c["State"] for c in found] == ["running"] * MANY
        wait_for(lambda: set(pool.map(logs, range(MANY))) == {b"up\n"}, "each has spoken")
        assert engine.docker("exec", "many250", "echo", "fine").out == "fine\n"
        engine.restart()
        _, found = engine.request("GET", "/containers/json")
        assert isinstance(found, list)
        assert len(found) == MANY

        def remove(number: int) -> int:
            return engine.request("DELETE", f"/containers/many{number}?force=1")[0]

        assert list(pool.map(remove, range(MANY))) == [204] * MANY


def test_output_is_logged_as_fast_as_it_comes(fresh_engine: EngineProcess) -> None:
    engine = fresh_engine
    options = ("--log-opt", "max-size=50m", "--log-opt", "max-file=3")
    script = f"yes {'x' * 99} | head -c {LOG_BYTES}; echo; echo end"
    words = ("run", "-d", "--name", "fast", "--network", "none", *options, "busybox", "sh", "-c")
    assert engine.docker(*words, script).code == 0
    assert engine.docker("exec", "fast", "true").code == 0  # it is not in anybody's way
    assert engine.docker("wait", "fast").out == "0\n"
    lines = engine.docker("logs", "--tail", "1000", "fast").lines
    assert lines[-1] == "end"
    assert len(lines) == 1000
    assert set(lines[:-2]) == {"x" * 99}
