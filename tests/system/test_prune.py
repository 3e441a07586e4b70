"""What nothing uses goes away when it is asked to, and what it took is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]


def test_prune_asks_first(cli: Cli) -> None:
    cli("create", "--name", "kept", "--network", "none", "busybox", "true")
    done = cli("container", "prune", stdin=b"n\n")
    assert done.out.startswith("WARNING! This will remove all stopped containers.\n")
    assert cli("ps", "-aq", "--filter", "name=kept").lines


def test_stopped_containers_are_pruned(cli: Cli) -> None:
    id_ = cli("create", "--label", "go=1", "--network", "none", "busybox", "true").out.strip()
    cli("create", "--name", "stays", "--network", "none", "busybox", "true")
    done = cli("container", "prune", "-f", "--filter", "label=go")
    assert done.lines == ["Deleted Containers:", id_, "", "Total reclaimed space: 0B"], str(done)
    assert cli("ps", "-a", "--format", "{{.Names}}").lines == ["stays"]


def test_containers_are_pruned_by_age_and_by_what_they_lack(cli: Cli) -> None:
    cli("create", "--name", "marked", "--label", "keep", "--network", "none", "busybox", "true")
    cli("create", "--name", "plain", "--network", "none", "busybox", "true")
    assert cli("container", "prune", "-f", "--filter", "until=1h").lines[-1].endswith(": 0B")
    assert len(cli("ps", "-aq").lines) == 2
    cli("container", "prune", "-f", "--filter", "label!=keep", "--filter", "until=0s")
    assert cli("ps", "-a", "--format", "{{.Names}}").lines == ["marked"]
    for bad, text in (("bogus=1", "invalid filter 'bogus'"), ("until=x", "failed to parse value")):
        done = cli("container", "prune", "-f", "--filter", bad)
        assert done.code == 1
        assert text in done.err


def test_unused_volumes_are_pruned_named_ones_only_with_all(cli: Cli) -> None:
    cli("volume", "create", "named")
    assert cli("volume", "prune", "-f").lines == ["Total reclaimed space: 0B"]
    done = cli("volume", "prune", "-af")
    assert done.lines == ["Deleted Volumes:", "named", "", "Total reclaimed space: 0B"], str(done)


def test_unused_networks_are_pruned(cli: Cli) -> None:
    cli("network", "create", "unused")
    assert cli("network", "prune", "-f").lines == ["Deleted Networks:", "unused", ""]


def test_dangling_images_are_pruned(cli: Cli, busybox_tar: bytes) -> None:
    id_ = cli("import", "-c", "LABEL by=prune", "-", stdin=busybox_tar).out.strip()
    done = cli("image", "prune", "-f", "--filter", "label=by=prune")
    assert done.code == 0, str(done)
    assert done.lines[:2] == ["Deleted Images:", f"deleted: {id_}"]
    assert done.lines[-1].startswith("Total reclaimed space: ")


def test_system_prune_takes_everything_unused(cli: Cli, engine: EngineProcess) -> None:
    cli("create", "--network", "none", "-v", "/data", "busybox", "true")
    cli("network", "create", "unused")
    done = cli("system", "prune", "-f", "--volumes")
    assert done.code == 0, str(done)
    titles = [line for line in done.lines if line.startswith("Deleted")]
    assert titles == ["Deleted Containers:", "Deleted Networks:", "Deleted Volumes:"]
    assert engine.request("GET", "/containers/json?all=1") == (200, [])
