"""Answers of the kernel, and messages that others send to the same socket."""

from __future__ import annotations

import socket

from berth.kernel import namespaces, netlink, rtnetlink
from berth.kernel.netlink import Message, NetlinkSocket
from support.forks import in_child


def test_what_others_in_a_namespace_send_is_no_answer() -> None:
    """Whoever may NET_ADMIN in a container's network may send to the engine's sockets in there."""

    def ask() -> list[object]:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        stranger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_ROUTE)
        with stranger, NetlinkSocket(netlink.NETLINK_ROUTE) as sock:
            rtnetlink.find_link(sock, "lo")  # it has an address from now on
            place = (sock._socket.getsockname()[0], 0)
            said: list[object] = []
            for _ in range(4):
                stranger.sendto(Message(netlink.NLMSG_ERROR, bytes(20)).encode(1), place)
                stranger.sendto(Message(netlink.NLMSG_DONE, bytes(4)).encode(1), place)
            try:
                sock.execute([rtnetlink.up_message(4711)], "bring up nothing")
            except OSError as error:
                said.append(error.errno)
            stranger.sendto(Message(16, bytes(16)).encode(1), place)
            link = rtnetlink.find_link(sock, "lo")
            said.append(link.name if link is not None else None)
            stranger.sendto(Message(netlink.NLMSG_DONE, bytes(4)).encode(1), place)
            return [*said, [found.name for found in rtnetlink.links(sock)]]

    errno, name, names = in_child(ask)
    assert errno == 19
    assert name == "lo"
    assert "lo" in names
