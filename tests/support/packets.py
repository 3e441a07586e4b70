"""Packets made by hand."""

from __future__ import annotations

import struct
from ipaddress import ip_address


def checksum(data):
    """Return the sum that IPv4 and ICMP have of their headers."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(source, target, protocol, payload):
    """Return a packet of IPv4."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    head += ip_address(source).packed + ip_address(target).packed
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload
