"""Fixtures of every tier, and the rule that in CI a test which can run there does run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator

# What a machine may lack without being set up wrongly: in CI any other skip is a failure.
LEGITIMATE_SKIPS = re.compile(
    r"Skipped: (needs (cgroup v[12]|a block device|a kernel (with (sch_netem|ipvlan)|without AppArmor)"
    r"|a machine without systemd|a criu that works with this kernel"
    r"|the file engine-api\.yaml)|no engine-api\.yaml)"
)
pytest_plugins = ["support.in_machine", "support.side_by_side"]

settings.register_profile("berth", deadline=None)  # a test that is slow has not failed
settings.load_profile("berth")

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
ROOT_TIERS = ("kernel", "system", "vm")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tiers that need root say so instead of failing."""
    if os.geteuid() == 0:
        return
    for item in items:
        tier = item.path.relative_to(HERE).parts[0]
        if tier in ROOT_TIERS or item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that CI must not have into a failure."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (IN_CI and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if LEGITIMATE_SKIPS.match(reason) or (reason.endswith("needs root") and os.geteuid() != 0):
        return
    report.outcome = "failed"
    report.longrepr = f"skipped where it must run: {reason}"
