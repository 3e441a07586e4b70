"""Monitors that are free: what becomes of a spare's groups when its monitor dies."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from berth.runtime import documents, monitors


class FakeChannel:
    """One end of a connection to a monitor."""

    def __init__(self):
        self.die = None

    def send(self, *_):
        """Take a message."""

    def deliver_to(self, take):
        """Note who hears of the monitor's end."""
        self.die = lambda: take(None)

    def close(self):
        """End it."""


class FakeHierarchies:
    """Groups that are removed."""

    def __init__(self):
        self.removed = []

    def open_group(self, path):
        """Return a group."""
        return SimpleNamespace(
            kill=lambda: None,
            remove=lambda: self.removed.append(path),
            exists=lambda: path not in self.removed,
        )


@pytest.fixture
def promised(monkeypatch):
    """Return how to have a monitor die whose spare's id was taken, and to use what is left then."""
    monkeypatch.setattr(documents, "of_spare", lambda *_: {})

    def use(work):
        async def do():
            hierarchies, channel = FakeHierarchies(), FakeChannel()
            free = monitors.FreeMonitors(hierarchies, SimpleNamespace(group="g", ahead=True))
            free.add(channel, 1)
            id_ = free.take_id()
            channel.die()
            await work(free, id_)
            return id_, hierarchies.removed

        return asyncio.run(do())

    return use


def test_groups_of_a_promised_spare_that_died_are_removed_when_no_container_comes(promised):
    async def come_not(free, id_):
        await free.give_back(id_)
        await free.give_back(id_)

    id_, removed = promised(come_not)
    assert removed == [f"g/{id_}"]


def test_they_are_the_containers_when_it_comes(promised):
    async def come(free, id_):
        assert free.ask({}, [], {}, id_) is None
        await free.give_back(id_)

    assert promised(come)[1] == []
