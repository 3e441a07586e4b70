"""An engine as a process of its own, in folders of its own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from berth.engine.instance import Instance
from support import kernel, schemas
from support.programs import Outcome, find, run
from support.waiting import wait_for

TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src"
STOP_S = 20.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))  # with a timeout a full queue would be an error
        self.sock.settimeout(self.timeout)


class EngineProcess:
    """berthd started by `berth serve`, its roots and its socket. ``module`` is run instead of `berth`."""

    def __init__(
        self,
        base: Path | None = None,
        *,
        flags: tuple[str, ...] = (),
        module: str = "berth",
        prefix: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """``prefix``: what starts the engine in its own place."""
        self.base = base or Path(tempfile.mkdtemp(prefix="berth-test-"))
        self.data_root = self.base / "data"
        self.exec_root = self.base / "exec"
        self.socket = self.base / "berth.sock"
        self.log = self.base / "berthd.log"
        self.instance = Instance.of(self.data_root)
        self.flags = flags
        self._module = module
        self._prefix = prefix
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the engine is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> EngineProcess:
        """Start berthd and wait until clients can connect."""
        ready, told = os.pipe()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    *(sys.executable, "-m", self._module, "serve", "-H", self.host),
                    *("--data-root", str(self.data_root), "--exec-root", str(self.exec_root)),
                    *("--ready-fd", str(told), *self.flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{SOURCE}:{TESTS}",
                    **self._environment,
                },
                pass_fds=(told,),
                start_new_session=True,
            )
        os.close(told)
        with open(ready, "rb") as pipe:
            is_ready = pipe.read(1)
        if not is_ready:
            self.kill()
            raise AssertionError(f"berthd did not start:\n{self.log.read_text()}")
        return self

    def kill(self) -> None:
        """SIGKILL berthd alone: containers go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """SIGTERM berthd and return its exit code: containers go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_S)
        self._process = None
        return code

    def restart(self) -> None:
        """SIGKILL and start again."""
        self.kill()
        self.start()

    def request(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None
    ) -> tuple[int, object]:
        """One request to the API; a JSON answer is decoded."""
        status, _, data = self.exchange(method, path, body, raw=raw)
        try:
            document = json.loads(data)
        except ValueError:
            return status, data
        self.check_answer(method, path, status, document)
        return status, document

    def check_answer(self, method: str, path: str, status: int, document: object) -> None:
        """Assert that an answer is as the API's description says."""
        schemas.check_answer(method, path, status, document)

    def exchange(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request to the API, the answer as it came."""
        connection = UnixConnection(self.socket)
        try:
            sent = raw if raw is not None else json.dumps(body).encode() if body else b""
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    # Clients

    def docker(self, *args: str, **options: object) -> Outcome:
        """Run the docker CLI against this engine."""
        return run(find("docker"), "-H", self.host, *args, **options)  # type: ignore[arg-type]

    def berth(self, *args: str, **options: object) -> Outcome:
        """Run berth's own CLI against this engine."""
        return run(sys.executable, "-m", "berth", "-H", self.host, *args, **options)  # type: ignore[arg-type]

    def inspect(self, ref: str) -> dict[str, object]:
        """Return the document about a container."""
        status, document = self.request("GET", f"/containers/{ref}/json")
        assert status == 200, document
        assert isinstance(document, dict)
        return document

    # Ends

    def remove_containers(self) -> None:
        """Remove every container, running or not."""
        status, containers = self.request("GET", "/containers/json?all=1")
        assert status == 200, containers
        assert isinstance(containers, list)
        for container in containers:
            self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    def close(self) -> None:
        """End the engine and everything of it, also after a failure, and remove its folders."""
        try:
            if self.is_running:
                self.remove_containers()
                self.stop()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            kernel.end_processes(self.instance.cgroup, (self.data_root, self.exec_root))
            kernel.remove_objects(self.instance)
            shutil.rmtree(self.base, ignore_errors=True)

    def settled(self) -> bool:
        """Say whether nothing of any container is left outside the store."""
        return not self.remains()

    def remains(self) -> list[str]:
        """List what containers left."""
        return kernel.remains(self)

    def wait_settled(self, timeout_s: float = 20.0) -> None:
        """Wait until janitors are done; AssertionError lists what is left."""
        try:
            wait_for(self.settled, "nothing is left", timeout_s=timeout_s)
        except AssertionError:
            remains = "\n".join(self.remains())
            assert not remains, f"left behind:\n{remains}"
