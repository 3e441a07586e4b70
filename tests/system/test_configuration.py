"""`berth.toml`: what an engine does with its settings, and how it takes new ones."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess
from support.programs import find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.berth_only  # a file of its own

SETTINGS = """
labels = ["rack=7"]
registry-mirrors = ["http://mirror.example:5000"]
insecure-registries = ["10.9.0.0/16", "plain.example:80"]
log-driver = "json-file"
log-opts = { max-size = "20k", max-file = "2" }
default-shm-size = "16M"
default-ipc-mode = "shareable"
dns = ["192.0.2.53"]
dns-search = ["berth.example"]
dns-opts = ["ndots:3"]
host-gateway-ips = ["192.0.2.7", "2001:db8::7"]
init = true
no-new-privileges = true
[default-ulimits.nofile]
Name = "nofile"
Soft = 64
Hard = 128
[features]
new-thing = true
"""


@pytest.fixture
def configured(tmp_path: Path, busybox_tar: bytes) -> Iterator[tuple[EngineProcess, Path]]:
    """An engine with a file of settings, and the file."""
    file = tmp_path / "berth.toml"
    file.write_text(SETTINGS)
    engine = EngineProcess(flags=("--config-file", str(file))).start()
    assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
    yield engine, file
    engine.close()


def info(engine: EngineProcess) -> dict[str, object]:
    status, found = engine.request("GET", "/info")
    assert status == 200
    assert isinstance(found, dict)
    return found


def test_info_shows_the_settings(configured: tuple[EngineProcess, Path]) -> None:
    found = info(configured[0])
    assert found["Labels"] == ["rack=7"]
    assert found["LoggingDriver"] == "json-file"
    assert found["Debug"] is False
    registries = found["RegistryConfig"]
    assert isinstance(registries, dict)
    assert registries["Mirrors"] == ["http://mirror.example:5000"]
    assert "10.9.0.0/16" in registries["InsecureRegistryCIDRs"]
    assert registries["IndexConfigs"]["plain.example:80"]["Secure"] is False


def test_containers_get_the_defaults(configured: tuple[EngineProcess, Path]) -> None:
    engine, _ = configured
    script = "ulimit -n; ulimit -Hn; df -k /dev/shm | tail -1; grep NoNewPrivs /proc/self/status"
    script += "; cat /etc/resolv.conf; cat /proc/1/comm"
    done = engine.docker("run", "--name", "made", "busybox", "sh", "-c", script)
    assert done.code == 0, done.err
    limit, hard, shm, privileges, *names, init = done.lines
    assert (limit, hard, shm.split()[1], privileges.split()[1]) == ("64", "128", "16384", "1")
    assert names == ["nameserver 192.0.2.53", "search berth.example", "options ndots:3"]
    assert init != "sh"
    host = engine.inspect("made")["HostConfig"]
    assert isinstance(host, dict)
    options = {"max-size": "20k", "max-file": "2"}
    assert host["LogConfig"] == {"Type": "json-file", "Config": options}
    assert host["IpcMode"] == "shareable"


def test_host_gateway_is_what_is_said(configured: tuple[EngineProcess, Path]) -> None:
    engine, _ = configured
    for words in ((), ("--network", "none")):
        gate = ("--rm", *words, "--add-host", "gate:host-gateway", "busybox")
        done = engine.docker("run", *gate, "grep", "gate$", "/etc/hosts")
        assert done.lines == ["192.0.2.7\tgate", "2001:db8::7\tgate"], str(done)


def test_what_a_container_says_itself_holds(configured: tuple[EngineProcess, Path]) -> None:
    engine, _ = configured
    words = (
        "--ulimit",
        "nofile=99",
        "--shm-size",
        "1m",
        "--dns",
        "192.0.2.1",
        "--log-driver",
        "none",
    )
    words += ("--security-opt", "no-new-privileges=false")
    script = "ulimit -n; grep NoNewPrivs /proc/self/status; grep nameserver /etc/resolv.conf"
    done = engine.docker("run", "--name", "own", *words, "busybox", "sh", "-c", script)
    assert done.out.split() == ["99", "NoNewPrivs:", "0", "nameserver", "192.0.2.1"]
    host = engine.inspect("own")["HostConfig"]
    assert isinstance(host, dict)
    assert host["LogConfig"] == {"Type": "none", "Config": {}}


def test_sighup_reloads_what_can_be(configured: tuple[EngineProcess, Path]) -> None:
    engine, file = configured
    since = str(info(engine)["SystemTime"])
    text = SETTINGS.replace("rack=7", "rack=8").replace("mirror.example", "other.example")
    file.write_text("debug = true\n" + text.replace("16M", "32M"))
    run(find("kill"), "-HUP", str(engine.pid), check=True)
    wait_for(lambda: info(engine)["Labels"] == ["rack=8"], "the labels are new")
    found = info(engine)
    assert found["Debug"] is True
    registries = found["RegistryConfig"]
    assert isinstance(registries, dict)
    assert registries["Mirrors"] == ["http://other.example:5000"]
    done = engine.docker(
        *("events", "--since", since, "--until", str(time.time()), "--filter", "type=daemon"),
        *("--format", "{{json .}}"),
    )
    event = json.loads(done.lines[0])
    assert (event["Type"], event["Action"]) == ("daemon", "reload")
    attributes = event["Actor"]["Attributes"]
    assert attributes["labels"] == '["rack=8"]'
    assert attributes["debug"] == "true"
    assert attributes["registry-mirrors"] == '["http://other.example:5000"]'
    assert attributes["name"]
    # What needs a new start stays as it is.
    shm = engine.docker("run", "--rm", "--network", "none", "busybox", "df", "-k", "/dev/shm")
    assert shm.lines[-1].split()[1] == "16384"


def test_a_reload_of_nonsense_changes_nothing(configured: tuple[EngineProcess, Path]) -> None:
    engine, file = configured
    for text, why in (
        ("nonsense = 1", "don't match any configuration option: nonsense"),
        ('labels = ["rack=9"]\nregistry-mirrors = ["x"]', "invalid mirror"),
        ("labels = [", "settings stay as they are"),
    ):
        file.write_text(text)
        run(find("kill"), "-HUP", str(engine.pid), check=True)
        wait_for(lambda why=why: why in engine.log.read_text(), "the log says why")  # type: ignore[misc]
    assert info(engine)["Labels"] == ["rack=7"]
    assert engine.is_running


@pytest.mark.parametrize(
    ("text", "flags", "code", "words"),
    [
        ("mtu = 1400", (), 0, "configuration OK"),
        ("no-such-thing = 1", (), 1, "configuration option: no-such-thing"),
        ('labels = ["a=b"]', ("--label", "c=d"), 1, "both as a flag and in the configuration file"),
        ('hosts = ["tcp://0.0.0.0:2375"]', (), 1, "without TLS"),
        ('hosts = ["tcp://0.0.0.0:2375"]\ntls = false', (), 0, "configuration OK"),
    ],
)
def test_settings_are_validated_without_an_engine(
    tmp_path: Path, text: str, flags: tuple[str, ...], code: int, words: str
) -> None:
    file = tmp_path / "b.toml"
    file.write_text(text)
    done = run(
        *(sys.executable, "-m", "berth", "serve", "--validate", "--config-file", str(file)), *flags
    )
    assert (done.code, words in done.out + done.err) == (code, True), str(done)


def test_the_example_is_valid() -> None:
    example = Path(__file__).parents[2] / "examples" / "berth.toml"
    words = ("serve", "--validate", "--config-file", str(example))
    assert run(sys.executable, "-m", "berth", *words).out == "configuration OK\n"


def test_another_router_than_the_bridge_leads_out(tmp_path: Path, busybox_tar: bytes) -> None:
    file = tmp_path / "b.json"
    routers = {"default-gateway": "10.217.7.9", "default-gateway-v6": "fd00:217::9"}
    subnets = {"bip": "10.217.7.1/24", "bip6": "fd00:217::1/64", "ipv6": True}
    file.write_text(json.dumps(routers | subnets))
    engine = EngineProcess(flags=("--config-file", str(file))).start()
    try:
        assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
        script = "ip route; ip -6 route; cat /etc/hosts; ip addr show eth0"
        done = engine.docker("run", "--rm", "busybox", "sh", "-c", script)
        for line in (
            "default via 10.217.7.9",
            "default via fd00:217::9",
            "10.217.7.1\thost.docker.internal",
        ):
            assert line in done.out
        form = "{{json .IPAM.Config}}"
        four, six = json.loads(
            engine.docker("network", "inspect", "-f", form, "bridge").out.replace("'", '"')
        )
        assert (four["Gateway"], six["Gateway"]) == ("10.217.7.1", "fd00:217::1")
        assert four["AuxiliaryAddresses"] == {"DefaultGatewayIPv4": "10.217.7.9"}
        assert six["AuxiliaryAddresses"] == {"DefaultGatewayIPv6": "fd00:217::9"}
        assert engine.docker("run", "-d", "--name=routed", "busybox", "sleep", "60").code == 0
        shown = engine.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", "routed").out
        assert shown == "10.217.7.9\n"
        # Of a network of one's own it is said so, and it holds for what comes later, too.
        own = ("--subnet=10.218.7.0/24", "--aux-address=DefaultGatewayIPv4=10.218.7.9")
        assert engine.docker("network", "create", *own, "own").code == 0
        assert engine.docker("network", "connect", "--gw-priority=1", "own", "routed").code == 0
        routes = engine.docker("exec", "routed", "ip", "route").out
        assert "default via 10.218.7.9" in routes
        assert "default via 10.217.7.9" not in routes
        assert engine.docker("rm", "-f", "routed").code == 0
        engine.docker("network", "rm", "own")
        engine.stop()
        file.write_text(json.dumps(routers | subnets | {"bip": "10.219.7.1/24"}))
        with pytest.raises(AssertionError, match="must be part of the network"):
            engine.start()
        file.write_text(json.dumps(subnets))
        engine.start()
    finally:
        engine.close()


@pytest.fixture
def own_bridge() -> Iterator[str]:
    """A bridge of the host's own, with an address."""
    name, ip = "berthown0", find("ip")
    run(ip, "link", "add", name, "type", "bridge", check=True)
    try:
        run(ip, "addr", "add", "10.220.7.1/24", "dev", name, check=True)
        yield name
    finally:
        run(ip, "link", "delete", name, check=True)


def test_the_default_network_may_have_a_bridge_that_is_there(
    tmp_path: Path, busybox_tar: bytes, own_bridge: str
) -> None:
    file = tmp_path / "b.json"
    file.write_text("{}")
    engine = EngineProcess(flags=("--config-file", str(file))).start()
    form = '{{(index .IPAM.Config 0).Gateway}} {{index .Options "com.docker.network.bridge.name"}}'

    def shown() -> str:
        return engine.docker("network", "inspect", "-f", form, "bridge").out.strip()

    try:
        assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
        assert engine.docker("run", "-d", "--name=stays", "busybox", "sleep", "60").code == 0
        before = shown()
        engine.stop()
        file.write_text(json.dumps({"bridge": own_bridge}))
        engine.start()
        assert shown() == before  # somebody is there
        assert engine.docker("exec", "stays", "ping", "-c1", before.split()[0]).code == 0
        assert engine.docker("rm", "-f", "stays").code == 0
        engine.restart()
        localnet = Path(f"/proc/sys/net/ipv4/conf/{own_bridge}/route_localnet")
        assert localnet.read_text() == "1\n"
        assert shown() == f"10.220.7.1 {own_bridge}"
        done = engine.docker("run", "--rm", "busybox", "sh", "-c", "ip route; ping -c1 10.220.7.1")
        assert "default via 10.220.7.1" in done.out
        assert done.code == 0, str(done)
        assert run(find("ip"), "link", "show", before.split()[1]).code != 0
        # And back: what is not the engine's stays.
        engine.stop()
        file.write_text("{}")
        engine.start()
        assert shown().split()[1] == before.split()[1]
        assert run(find("ip"), "link", "show", own_bridge).code == 0
        assert localnet.read_text() == "0\n"
        option = f"com.docker.network.bridge.name={own_bridge}"
        created = engine.docker("network", "create", "--subnet=10.220.7.0/24", "-o", option, "own")
        assert (created.code, localnet.read_text()) == (0, "1\n"), str(created)
        engine.restart()
        assert engine.docker("network", "rm", "own").code == 0
        assert localnet.read_text() == "0\n"
        engine.stop()
        file.write_text(json.dumps({"bridge": "nowhere0"}))
        with pytest.raises(AssertionError, match="nowhere0 must be created manually"):
            engine.start()
    finally:
        engine.close()


def test_new_networks_have_the_options_that_settings_give_their_driver(tmp_path: Path) -> None:
    mtu, prefix = "com.docker.network.driver.mtu", "com.docker.network.container_iface_prefix"
    flags = (f"--default-network-opt=bridge={mtu}=1300", f"--default-network-opt=bridge={prefix}=n")
    more = ("--userland-proxy=false", "--iptables", "--ip6tables=true", "--ip-forward=false")
    engine = EngineProcess(flags=(*flags, *more)).start()
    try:
        assert engine.docker("network", "create", "as-told").code == 0
        assert engine.docker("network", "create", "-o", f"{mtu}=1200", "own").code == 0
        for name, size in (("as-told", "1300"), ("own", "1200")):
            found = engine.docker("network", "inspect", "-f", "{{json .Options}}", name).out
            assert json.loads(found) == {mtu: size, prefix: "n"}
        form = f'{{{{index .Options "{mtu}"}}}}'
        assert engine.docker("network", "inspect", "-f", form, "bridge").out == "1500\n"
        engine.docker("network", "rm", "as-told", "own")
    finally:
        engine.close()


def test_networks_are_where_the_settings_say(tmp_path: Path, busybox_tar: bytes) -> None:
    pools = "default-address-pools = [{ base = '10.214.0.0/16', size = 26 }]"
    file = tmp_path / "b.toml"
    file.write_text(f"bip = '10.215.7.1/24'\nmtu = 1400\n{pools}\n")
    engine = EngineProcess(flags=("--config-file", str(file))).start()
    try:
        assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
        done = engine.docker("run", "--rm", "busybox", "ip", "addr", "show", "eth0")
        assert "inet 10.215.7.2/24" in done.out
        assert "mtu 1400" in done.out
        for name, subnet in (("one", "10.214.0.0/26"), ("two", "10.214.0.64/26")):
            assert engine.docker("network", "create", name).code == 0
            form = "{{(index .IPAM.Config 0).Subnet}}"
            assert engine.docker("network", "inspect", "-f", form, name).out == f"{subnet}\n"
        assert info(engine)["DefaultAddressPools"] == [{"Base": "10.214.0.0/16", "Size": 26}]
        # Another address, once nobody is on the bridge, and IPv6.
        engine.stop()
        words = "ipv6 = true\nfixed-cidr-v6 = 'fd00:216::/64'\nip = '127.0.0.1'\nicc = false"
        file.write_text(
            f"bip = '10.216.7.9/24'\nfixed-cidr = '10.216.7.128/25'\n{words}\n{pools}\n"
        )
        engine.start()
        done = engine.docker("run", "--rm", "busybox", "ip", "route")
        assert "default via 10.216.7.9" in done.out
        assert (
            engine.docker("run", "-d", "--name=inner", "-p", "80", "busybox", "sleep", "60").code
            == 0
        )
        done = engine.docker("exec", "inner", "ip", "addr", "show", "eth0")
        assert "inet 10.216.7.1" in done.out
        assert "inet6 fd00:216::" in done.out
        assert "default via fd00:216::1" in engine.docker("exec", "inner", "ip", "-6", "route").out
        assert engine.docker("port", "inner").out.startswith("80/tcp -> 127.0.0.1:")
        form = '{{.EnableIPv6}} {{index .Options "com.docker.network.bridge.enable_icc"}}'
        assert engine.docker("network", "inspect", "-f", form, "bridge").out == "true false\n"
        assert engine.docker("rm", "-f", "inner").code == 0
        engine.docker("network", "rm", "one", "two")
    finally:
        engine.close()
