"""dockerd in the engine's place, to prove the tests: `BERTH_TEST_REFERENCE=dockerd pytest tests/system`."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess
from support.programs import PATH, find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from support.programs import Outcome


class Reference(EngineProcess):
    """Debian's dockerd in a network namespace of its own. What only berth promises is skipped."""

    def start(self) -> EngineProcess:
        self.netns = self.base.name
        run(find("ip"), "netns", "add", self.netns)
        run(find("ip"), "-n", self.netns, "link", "set", "lo", "up", check=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self.netns}", find("dockerd")),
                    *("-H", self.host, "--data-root", str(self.data_root)),
                    *("--exec-root", str(self.exec_root), "--pidfile", str(self.base / "pid")),
                    *("--log-level", "warn"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": PATH},
                start_new_session=True,
            )
        wait_for(self._answers, "dockerd answers", timeout_s=60)
        return self

    def _answers(self) -> bool:
        assert self.is_running, self.log.read_text()
        return self.docker("version").code == 0

    def kill(self) -> None:
        pytest.skip("the reference is not killed")

    def berth(self, *args: str, **options: object) -> Outcome:
        pytest.skip("the reference is asked through the docker CLI only")

    def check_answer(self, method: str, path: str, status: int, document: object) -> None:
        """An older Docker answers what its own description says."""

    def remains(self) -> list[str]:
        return []

    def close(self) -> None:
        try:
            self.remove_containers()
        finally:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(60)
            self._process = None
            run(find("ip"), "netns", "delete", self.netns)
            run("umount", "-R", "-l", str(self.base))
            super().close()
