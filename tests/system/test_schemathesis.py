"""Schemathesis: requests made of the API's own description, right and wrong ones, get what it promises."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from support import schemas
from support.engine import UnixConnection
from system.conftest import import_busybox, make_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case
    from schemathesis.schemas import APIOperation

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only

EXAMPLES = 12
BASE = "http://localhost/v1.56"
# Streams that end with a client only, what asks other machines, and what answers before it looks.
OTHERS = (
    *("/events", "/session", "/build", "/grpc", "/images/create", "/images/search", "/auth"),
    *("/distribution", "/images/{name}/push", "/containers/{id}/attach", "/containers/{id}/logs"),
    *("/containers/{id}/stats", "/containers/{id}/wait", "/swarm", "/nodes", "/services"),
    *("/tasks", "/secrets", "/configs", "/plugins", "/images/load", "/exec/{id}/start"),
)
# Of Docker itself, in its words.
SERVER_ERRORS = (
    "ps: ",
    "cannot remove the default link name",
    "This node is not a swarm manager",
)


def operations() -> Iterator[object]:
    found = schemas.relaxed()
    if found is None:
        yield pytest.param(None, marks=pytest.mark.skip("needs the file engine-api.yaml"))
        return
    for result in schemathesis.openapi.from_dict(found).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if not operation.path.startswith(OTHERS):
            yield pytest.param(operation, id=operation.label)


@pytest.fixture(scope="module")
def described(busybox_tar: bytes) -> Iterator[EngineProcess]:
    """An engine for everything that may be asked, with a container that runs."""
    engine = make_engine()
    try:
        engine.start()
        import_busybox(engine, busybox_tar)
        script = "trap exit TERM; while :; do sleep 1; done"
        words = ("run", "-d", "--name", "victim", "--network", "none", "busybox", "sh", "-c")
        assert engine.docker(*words, script).code == 0
        yield engine
    finally:
        engine.close()


@pytest.fixture
def spare(described: EngineProcess) -> str:
    """A container that may be changed and removed."""
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    described.request("POST", "/containers/create?name=spare", body)
    return "spare"


def aim(case: Case, spare: str) -> None:
    """Let a request be about something that is there."""
    known = {"/containers/": "victim" if case.method == "GET" else spare}
    known |= {"/networks/": "none", "/images/": "busybox"} if case.method == "GET" else {}
    for prefix, name in known.items():
        for key in case.path_parameters:
            if case.path.startswith(prefix):
                case.path_parameters[key] = name


def send(engine: EngineProcess, case: Case) -> tuple[int, bytes]:
    """Send a request through the engine's socket, and return the status and body of its answer."""
    request = requests.Request(**case.as_transport_kwargs(base_url=BASE)).prepare()
    connection = UnixConnection(engine.socket)
    try:
        connection.request(
            str(request.method), request.path_url, request.body, dict(request.headers)
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("operation", list(operations()))
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_an_answer_is_as_described(
    described: EngineProcess, spare: str, operation: APIOperation, mode: GenerationMode
) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check_one(case: Case) -> None:
        aim(case, spare)
        assert_described(described, case, *send(described, case))

    # There is nothing to be wrong in where there is no parameter.
    with contextlib.suppress(*[Unsatisfiable] if mode == GenerationMode.NEGATIVE else []):
        check_one()
    assert described.request("GET", "/_ping")[0] == 200


def assert_described(engine: EngineProcess, case: Case, status: int, data: bytes) -> None:
    text = data.decode(errors="replace")
    if status >= 400:
        fine = status < 500 or status == 501 or any(words in text for words in SERVER_ERRORS)
        assert fine, (case.as_curl_command(), status, text)
        assert "Traceback" not in text
        assert "internal error" not in text
    if data and case.method != "HEAD" and (status >= 400 or data.startswith((b"[", b"{"))):
        engine.check_answer(case.method, case.formatted_path, status, json.loads(data))
