"""Configuration networks: addresses and options that are said once and taken by networks made later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

MTU = "com.docker.network.driver.mtu"
CREATE = ("network", "create")
FROM = (*CREATE, "--config-from")


@pytest.fixture
def configured(cli: Cli, engine: EngineProcess) -> Iterator[Cli]:
    """Each CLI in turn, with a configuration `plan`; afterwards no network of the test's is left."""
    flags = ("--subnet", "10.98.7.0/24", "--gateway", "10.98.7.9", "-o", f"{MTU}=1400")
    done = cli(*CREATE, "--config-only", *flags, "--label", "a=b", "plan")
    assert done.code == 0, str(done)
    yield cli
    engine.remove_containers()
    for name in ("made", "other", "plan"):
        engine.docker("network", "rm", name)


def shown(cli: Cli, name: str) -> dict[str, object]:
    return json.loads(cli("network", "inspect", name).out)[0]


def test_a_network_is_made_by_a_configuration(configured: Cli) -> None:
    plan = shown(configured, "plan")
    assert (plan["ConfigOnly"], plan["Driver"], plan["Scope"]) == (True, "null", "local")
    pools = [{"Subnet": "10.98.7.0/24", "Gateway": "10.98.7.9"}]
    assert (plan["IPAM"]["Config"], plan["Options"]) == (pools, {MTU: "1400"})
    assert configured(*FROM, "plan", "--label", "c=d", "made").code == 0
    made = shown(configured, "made")
    assert (made["ConfigOnly"], made["ConfigFrom"]) == (False, {"Network": "plan"})
    assert (made["Driver"], made["IPAM"]["Config"]) == ("bridge", pools)
    assert (made["Options"], made["Labels"]) == ({MTU: "1400"}, {"a": "b", "c": "d"})
    script = ("sh", "-c", "ip route; cat /sys/class/net/eth0/mtu")
    done = configured("run", "--rm", "--network", "made", "busybox", *script)
    assert done.lines[0].startswith("default via 10.98.7.9")
    assert done.lines[-1] == "1400"


def test_a_configuration_may_name_a_driver_of_addresses(configured: Cli) -> None:
    assert configured(*CREATE, "--config-only", "--ipam-driver", "missing", "other").code == 0
    assert shown(configured, "other")["IPAM"] == {"Driver": "missing", "Options": {}, "Config": []}
    refused = configured(*FROM, "other", "made")
    assert (refused.code, 'plugin "missing" not found' in refused.err) == (1, True)


def test_a_configuration_is_kept_while_networks_are_made_by_it(
    configured: Cli, engine: EngineProcess
) -> None:
    assert configured(*FROM, "plan", "made").code == 0
    refused = configured("network", "rm", "plan")
    assert (refused.code, 'configuration network "plan" is in use' in refused.err) == (1, True)
    assert "plan" not in configured("network", "prune", "-f").lines
    assert engine.request("GET", "/networks/made")[0] == 404  # pruned
    assert configured("network", "rm", "plan").out == "plan\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*FROM, "nothing", "other"), 'configuration network "nothing" does not exist'),
        ((*FROM, "bridge", "other"), 'configuration network "bridge" does not exist'),
        ((*FROM, "plan", "--subnet", "10.98.8.0/24", "other"), "user specified configurations"),
        ((*FROM, "plan", "--ipv6", "other"), "user specified configurations"),
        ((*FROM, "plan", "--ipam-driver", "null", "other"), "user specified configurations"),
        ((*FROM, "plan", "-o", "a=b", "other"), "network driver options are not supported"),
        ((*CREATE, "--config-only", "--internal", "other"), "only contain network specific fields"),
        ((*CREATE, "--config-only", "--scope", "local", "other"), "network specific fields"),
        ((*FROM, "plan", "--config-only", "other"), "cannot depend on another"),
        ((*CREATE, "--config-only", "plan"), "network with name plan already exists"),
        (("run", "--rm", "--network", "plan", "busybox", "true"), "configuration-only network"),
    ],
)
def test_what_does_not_go_together_is_refused(
    configured: Cli, words: tuple[str, ...], says: str
) -> None:
    done = configured(*words)
    assert done.code in (1, 125), str(done)
    assert says in done.err
    assert configured("network", "inspect", "other").code == 1


@pytest.mark.berth_only
def test_a_configuration_outlives_the_engine(fresh_engine: EngineProcess) -> None:
    docker = fresh_engine.docker
    assert docker(*CREATE, "--config-only", "--subnet", "10.98.9.0/24", "plan").code == 0
    assert docker(*FROM, "plan", "made").code == 0
    before = shown(docker, "plan"), shown(docker, "made")
    fresh_engine.restart()
    assert (shown(docker, "plan"), shown(docker, "made")) == before
    assert docker("network", "rm", "plan").code == 1
    assert docker("network", "rm", "made", "plan").code == 0
