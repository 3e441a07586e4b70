"""A test suite's container: started, waited for, asked, and gone with its block."""

from __future__ import annotations

import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

COMMAND = "mkdir -p /www; echo answer > /www/index.html; echo ready; exec httpd -f -p 80 -h /www"

with Network() as network:
    server = (
        DockerContainer("busybox")
        .with_command(["sh", "-c", COMMAND])
        .with_exposed_ports(80)
        .with_env("COLOUR", "blue")
        .with_network(network)
        .with_network_aliases("server")
    )
    with server:
        wait_for_logs(server, "ready", timeout=30)
        port = server.get_exposed_port(80)
        with urllib.request.urlopen(f"http://{server.get_container_host_ip()}:{port}/") as answer:
            assert answer.read() == b"answer\n"
        code, output = server.exec("sh -c 'echo $COLOUR'")
        assert (code, output) == (0, b"blue\n")
        peer = DockerContainer("busybox").with_network(network).with_command("sleep 600")
        with peer:
            assert peer.exec("wget -qO- http://server/").output == b"answer\n"
        id_ = server.get_wrapped_container().id
print(id_)
