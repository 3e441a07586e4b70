"""IPv6 through the command lines: what is shown, names, ports, and addresses that are chosen."""

from __future__ import annotations

import urllib.request
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for
from system.test_networks import lookup, settings, start

if TYPE_CHECKING:
    from support.engine import EngineProcess
    from system.test_networks import Cli

pytestmark = pytest.mark.berth_only  # the reference is of a version before these networks


def test_a_network_of_both_versions_is_shown(cli: Cli, networks: EngineProcess) -> None:
    made = cli(
        *("network", "create", "--ipv6", "--subnet", "10.99.8.0/24", "--subnet"),
        *("2001:db8:8::/64", "--gateway", "2001:db8:8::fe", "--ip-range", "2001:db8:8::1:0/112"),
        *("--aux-address", "router=2001:db8:8::1:0", "dual"),
    )
    assert made.code == 0, str(made)
    shown = networks.request("GET", "/networks/dual")[1]
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (True, True)
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "10.99.8.0/24", "Gateway": "10.99.8.1"},
        {
            "Subnet": "2001:db8:8::/64",
            "IPRange": "2001:db8:8::1:0/112",
            "Gateway": "2001:db8:8::fe",
            "AuxiliaryAddresses": {"router": "2001:db8:8::1:0"},
        },
    ]
    start(cli, "member", "--network", "dual")
    start(cli, "chosen", "--network", "dual", "--ip6", "2001:db8:8::77")
    place = settings(networks, "member")["Networks"]["dual"]
    assert (place["GlobalIPv6Address"], place["GlobalIPv6PrefixLen"]) == ("2001:db8:8::1:1", 64)
    assert (place["IPv6Gateway"], place["Gateway"]) == ("2001:db8:8::fe", "10.99.8.1")
    chosen = settings(networks, "chosen")["Networks"]["dual"]
    assert chosen["GlobalIPv6Address"] == "2001:db8:8::77"
    assert chosen["IPAMConfig"] == {"IPv6Address": "2001:db8:8::77"}
    members = networks.request("GET", "/networks/dual")[1]["Containers"].values()
    assert {(m["Name"], m["IPv6Address"]) for m in members} == {
        ("member", "2001:db8:8::1:1/64"),
        ("chosen", "2001:db8:8::77/64"),
    }
    assert "2001:db8:8::1:1" in cli("exec", "member", "cat", "/etc/hosts").out
    assert cli("exec", "member", "ping", "-6", "-c", "1", "-W", "5", "chosen").code == 0
    routes = cli("exec", "member", "ip", "-6", "route").out
    assert "default via 2001:db8:8::fe dev eth0" in routes


def test_names_have_addresses_of_both_versions(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "--ipv6", "dual")
    cli("network", "create", "--ipv6", "--ipv4=false", "six")
    for network in ("dual", "six"):
        start(cli, f"server-{network}", "--network", network, "--network-alias", "db")
        start(cli, f"client-{network}", "--network", network)
        place = settings(networks, f"server-{network}")["Networks"][network]
        four, six = place["IPAddress"], place["GlobalIPv6Address"]
        assert ip_address(six) in ip_network("fd00::/8")
        client = f"client-{network}"
        assert lookup(cli, client, "db", "-type=aaaa") == [six]
        assert lookup(cli, client, "db", "-type=a") == ([four] if four else [])
        reverse = ip_address(six).reverse_pointer
        answer = cli("exec", client, "nslookup", "-type=ptr", reverse).out
        assert f"server-{network}.{network}" in answer
        gateway = lookup(cli, client, "host.docker.internal", "-type=aaaa")
        assert gateway == [place["IPv6Gateway"]]
    assert settings(networks, "server-six")["Networks"]["six"]["IPAddress"] == ""
    assert cli("exec", "client-six", "ping", "-c", "1", "-W", "5", "db").code == 0


def test_ports_are_shown_for_both_versions(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "--ipv6", "dual")
    start(cli, "server", "--network", "dual", "-p", "18080:80", "-p", "[::1]:18081:81")
    assert settings(networks, "server")["Ports"] == {
        "80/tcp": [
            {"HostIp": "0.0.0.0", "HostPort": "18080"},
            {"HostIp": "::", "HostPort": "18080"},
        ],
        "81/tcp": [{"HostIp": "::1", "HostPort": "18081"}],
    }
    assert cli("port", "server", "80").lines == ["0.0.0.0:18080", "[::]:18080"]
    assert cli("ps", "--format", "{{.Ports}}").out == (
        "0.0.0.0:18080->80/tcp, [::]:18080->80/tcp, [::1]:18081->81/tcp\n"
    )


@pytest.mark.parametrize("mode", ["nat", "nat-unprotected"])
def test_the_hosts_loopback_address_leads_to_a_port(
    cli: Cli, networks: EngineProcess, mode: str
) -> None:
    """Also where bridges show their packets to ip6tables, as they do beside other engines."""
    option = f"com.docker.network.bridge.gateway_mode_ipv6={mode}"
    assert cli("network", "create", "--ipv6", "-o", option, "dual").code == 0
    script = "echo hello >/tmp/index.html; exec httpd -f -p [::]:80 -h /tmp"
    ports = ("-p", "18080:80", "-p", "[::1]:18081:80")
    done = cli("run", "-d", "--network=dual", *ports, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    for port in (18080, 18081):
        wait_for(lambda port=port: _fetch(port) == b"hello\n", f"[::1]:{port} answers")


def _fetch(port: int) -> bytes:
    try:
        with urllib.request.urlopen(f"http://[::1]:{port}/") as answer:
            return answer.read()
    except OSError:  # the server has not begun
        return b""


def test_a_running_container_gets_and_loses_ipv6(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "--ipv6", "--subnet", "2001:db8:8::/64", "dual")
    start(cli, "plain")
    assert "inet6 fe80" not in cli("exec", "plain", "ip", "-6", "addr").out
    done = cli("network", "connect", "--ip6", "2001:db8:8::5", "dual", "plain")
    assert done.code == 0, str(done)
    assert "2001:db8:8::5/64" in cli("exec", "plain", "ip", "-6", "addr").out
    assert "2001:db8:8::5" in cli("exec", "plain", "cat", "/etc/hosts").out
    assert cli("exec", "plain", "ping", "-6", "-c", "1", "-W", "5", "2001:db8:8::1").code == 0
    assert cli("network", "disconnect", "dual", "plain").code == 0
    assert "2001:db8:8::5" not in cli("exec", "plain", "cat", "/etc/hosts").out


@pytest.mark.parametrize(
    ("ip", "text"),
    [
        ("2001:db8:8::1", "Address already in use"),
        ("2001:db8:9::7", "no configured subnet contains IP address 2001:db8:9::7"),
        ("10.99.1.1", "invalid IPv6 address"),
    ],
)
def test_an_address_that_cannot_be_is_refused(
    docker_cli: Cli, networks: EngineProcess, ip: str, text: str
) -> None:
    docker_cli("network", "create", "--ipv6", "--subnet", "2001:db8:8::/64", "dual")
    done = docker_cli("run", "--rm", "--network", "dual", "--ip6", ip, "busybox", "true")
    assert (done.code, text in done.err) == (125, True), str(done)
