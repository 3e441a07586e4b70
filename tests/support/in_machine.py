"""Run tests in a virtual machine: all of tests/vm, and with --in-machine whatever was chosen.

One pytest here and one in there run the same items. That one sends its reports as they come (pytest's own
JSON form of them), this one shows them as its own.

    here   Machine(script) ──► pytest ITEM…  in there
    here   ◄── {"$report_type": "TestReport", …}  for each item's set-up, call and tear-down
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.machine import ROOT, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = "BERTH_TEST_IN_MACHINE"
TIER = Path(__file__).parents[1] / "vm"
REPORTS_FD = 3
PASSED_ON = ("CI", "PYTHONDONTWRITEBYTECODE")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--in-machine",
        action="store_true",
        help="run every chosen test in a virtual machine with Debian's kernel and cgroup v2",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "machine(options): kernel options of the virtual machine")
    plugin = Sender(config) if INSIDE in os.environ else Receiver(config)
    config.pluginmanager.register(plugin, "in-machine")


class Sender:
    """In the machine: every report as a line of JSON."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._port = os.fdopen(REPORTS_FD, "wb", buffering=0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        document = self._config.hook.pytest_report_to_serializable(
            config=self._config, report=report
        )
        self._port.write(json.dumps(document).encode() + b"\n")


class Receiver:
    """Here: a machine for consecutive items with the same options, and its reports in the items' place."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run: _Run | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # One boot for each set of options.
        items.sort(key=lambda item: (self._is_inside(item), _options(item)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        if not self._is_inside(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        try:
            for report in self._reports(item):
                item.ihook.pytest_runtest_logreport(report=report)
        finally:
            if nextitem is None or not self._is_inside(nextitem):
                self._close()
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        self._close()

    def _is_inside(self, item: pytest.Item) -> bool:
        wanted = bool(self._config.getoption("in_machine")) or item.path.is_relative_to(TIER)
        # A skip that is known here needs no machine.
        return wanted and not any(item.iter_markers("skip"))

    def _reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        call = pytest.CallInfo.from_call(
            lambda: self._run_for(item).documents(item.nodeid),
            "setup",
            reraise=(KeyboardInterrupt,),
        )
        if call.excinfo is not None:  # skipped for what this machine lacks, or the other one failed
            yield item.ihook.pytest_runtest_makereport(item=item, call=call)
            return
        assert call.result is not None
        for document in call.result:
            yield self._config.hook.pytest_report_from_serializable(
                config=self._config, data=document
            )

    def _run_for(self, item: pytest.Item) -> _Run:
        """Return the run of the machine that has the item's options, booted when need be."""
        options = _options(item)
        if self._run is None or self._run.options != options:
            self._close()
            items = [i for i in item.session.items if self._is_inside(i)]
            self._run = _Run([i for i in items if _options(i) == options], options)
        return self._run

    def _close(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run = None


class _Run:
    """A pytest in a machine."""

    def __init__(self, items: list[pytest.Item], options: str) -> None:
        self.options = options
        self._machine = Machine(_script([item.nodeid for item in items]), kernel_options=options)
        self._machine.__enter__()
        self._lines = self._machine.lines()

    def documents(self, nodeid: str) -> list[dict[str, object]]:
        """Return an item's reports, the last of which is that of its tear-down."""
        found = []
        for line in self._lines:
            document = json.loads(line)
            assert document["nodeid"] == nodeid, f"a report of {document['nodeid']}"
            if isinstance(document["longrepr"], list):  # why it was skipped: JSON has no tuples
                document["longrepr"] = tuple(document["longrepr"])
            found.append(document)
            if document["when"] == "teardown":
                return found
        console = self._machine.console.read_text(errors="replace")
        raise AssertionError(f"the machine went before it ran {nodeid}:\n{console}")

    def close(self) -> None:
        self._machine.close()


def _options(item: pytest.Item) -> str:
    marker = item.get_closest_marker("machine")
    return str(marker.args[0]) if marker else ""


def _script(nodeids: list[str]) -> str:
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {INSIDE: "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *nodeids]
    return "\n".join(
        (
            f"cd {shlex.quote(str(ROOT))}",
            *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
            shlex.join(command),
        )
    )
