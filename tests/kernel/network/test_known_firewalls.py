"""ufw, firewalld and iptables of both kinds, as they are installed: what they forbid stays forbidden."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from berth.network.records import NetworkRequest
from support.networks import HOST, HOST6, NAMES, OUTSIDE, OUTSIDE6
from support.programs import PATH, find, run

PORT = "8080"
BUS = """
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
START_S = 60

pytestmark = pytest.mark.parametrize("engine", [0], indirect=True)


@pytest.fixture
def server(net, engine):
    container = engine.connect("server", (80, 8080))
    return net.listen(container.netns_fd, 80)


def reaches(net, address=HOST):
    with net.socket(net.outside_fd, near=address) as client:
        client.settimeout(0.5)
        return client.connect_ex((address, int(PORT))) == 0


def is_served(net, server):
    return net.talk(server, net.outside_fd, (HOST, int(PORT))) == OUTSIDE


@pytest.fixture
def ufw(net, tmp_path):
    """Calls ufw with a configuration of its own, in the place of the machine's."""
    program, own = find("ufw"), tmp_path / "ufw"
    shutil.copytree("/etc/ufw", own)

    def call(*words):
        script = 'mount --bind "$0" /etc/ufw && exec "$@"'
        apart = (find("unshare"), "--mount", "--propagation", "private", "sh", "-c", script)
        done = run(*apart, str(own), program, *words, env={**os.environ, "PATH": PATH})
        assert done.code == 0, str(done)

    return call


def test_what_ufw_denies_stays_closed(net, server, ufw):
    assert is_served(net, server)
    ufw("--force", "enable")
    assert not reaches(net)
    ufw("allow", f"{PORT}/tcp")
    assert not reaches(net)  # nor does it forward anything
    ufw("route", "allow", "out", "on", NAMES.bridge)
    assert is_served(net, server)
    ufw("insert", "1", "deny", "from", OUTSIDE, "to", "any", "port", PORT)
    assert not reaches(net)
    ufw("reload")
    assert not reaches(net)
    ufw("delete", "deny", "from", OUTSIDE, "to", "any", "port", PORT)
    ufw("reload")
    assert is_served(net, server)
    ufw("--force", "disable")
    assert is_served(net, server)


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_what_iptables_forbids_stays_closed(net, engine, kind):
    container = engine.connect("server", (80, 8080))
    server = net.listen(container.netns_fd, 80)
    iptables = find(f"iptables-{kind}")

    def rule(*words):
        run(iptables, "-w", *words, check=True)

    rule("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
    rule("-P", "INPUT", "DROP")
    assert not reaches(net)
    rule("-A", "INPUT", "-p", "tcp", "--dport", PORT, "-j", "ACCEPT")
    assert is_served(net, server)
    rule("-I", "INPUT", "-p", "tcp", "-s", OUTSIDE, "--dport", PORT, "-j", "REJECT")
    assert not reaches(net)
    rule("-P", "INPUT", "ACCEPT")
    for table in ("filter", "nat", "mangle", "raw"):
        rule("-t", table, "-F")
        rule("-t", table, "-X")
    assert is_served(net, server)


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_what_ip6tables_forbids_stays_closed(net, engine, kind):
    engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))
    container = engine.connect("server", (80, 8080), network="dual")
    server = net.listen(container.netns_fd, 80, "::")
    program = find(f"ip6tables-{kind}")
    forbidden = ("INPUT", "-p", "tcp", "--dport", PORT, "-j", "DROP")
    run(program, "-w", "-A", *forbidden, check=True)
    assert not reaches(net, HOST6)
    run(program, "-w", "-D", *forbidden, check=True)
    assert net.talk(server, net.outside_fd, (HOST6, int(PORT)))


@contextlib.contextmanager
def running(*command, env):
    """A program that runs meanwhile."""
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@pytest.fixture
def firewalld(net, tmp_path):
    """Calls firewall-cmd, for a firewalld of this host with a bus and a configuration of its own."""
    socket, configuration = tmp_path / "bus", tmp_path / "bus.conf"
    configuration.write_text(BUS.format(socket=socket))
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/firewalld.conf").write_text("IPv6_rpfilter=no\n")
    env = {**os.environ, "PATH": PATH, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
    bus = (find("dbus-daemon"), "--nofork", f"--config-file={configuration}")
    daemon = (find("firewalld"), "--nofork", "--nopid", "--log-target", "console")
    settings = ("--system-config", str(tmp_path / "settings"))

    def call(*words):
        done = run(find("firewall-cmd"), *words, env=env)
        assert done.code == 0, str(done)

    def wait(process, is_there):
        end = time.monotonic() + START_S
        while not is_there():
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.monotonic() < end
            time.sleep(0.05)

    with running(*bus, env=env) as process:
        wait(process, socket.exists)
        with running(*daemon, *settings, env=env) as process:
            state = (find("firewall-cmd"), "--state")
            wait(process, lambda: run(*state, env=env).code == 0)
            yield call


def test_what_firewalld_does_not_open_stays_closed(net, engine, server, firewalld):
    assert not reaches(net)
    firewalld(f"--add-port={PORT}/tcp")
    assert is_served(net, server)
    who = f"rule family=ipv4 source address={OUTSIDE} port port={PORT} protocol=tcp drop"
    firewalld(f"--add-rich-rule={who}")
    assert not reaches(net)
    firewalld("--reload")  # and what was added is forgotten
    assert not reaches(net)
    firewalld(f"--add-port={PORT}/tcp")
    assert is_served(net, server)


def test_what_firewalld_opens_is_reached_by_ipv6(net, engine, firewalld):
    engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))
    container = engine.connect("server", (80, 8080), network="dual")
    server = net.listen(container.netns_fd, 80, "::")
    assert not reaches(net, HOST6)
    firewalld(f"--add-port={PORT}/tcp")
    assert net.talk(server, net.outside_fd, (HOST6, int(PORT))) == OUTSIDE6


def test_containers_reach_the_world_through_firewalld_once_it_knows_their_bridge(
    net, engine, server, firewalld
):
    inside = engine.service._sandboxes._held["server"].netns_fd
    world = net.listen(net.outside_fd, 9000)

    def leaves():
        with net.socket(inside) as client:
            client.settimeout(0.5)
            return client.connect_ex((OUTSIDE, 9000)) == 0

    assert not leaves()
    firewalld("--zone=trusted", f"--add-interface={NAMES.bridge}")
    assert net.talk(world, inside, (OUTSIDE, 9000)) == HOST
    assert not reaches(net)
