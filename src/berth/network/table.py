"""The engine's nftables tables in the kernel: changed, and restored when somebody else changed them.

For the one thread that changes the kernel's network. Every transaction names the generation that the
last one left; when the kernel has another, somebody was there, and the tables are looked at.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from berth.kernel import netlink, nftables
from berth.kernel.netlink import NetlinkSocket
from berth.network import firewall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from berth.kernel.netlink import Message

log = logging.getLogger("berth")

_TRIES = 32


def is_possible(family: int, *rule: bytes, hook: int = nftables.PREROUTING) -> bool:
    """Say whether the kernel takes such a rule in such a chain; it is made and not kept."""
    table = nftables.Table("berth-probe", family)
    chain = nftables.base_chain(table, "probe", kind="filter", hook=hook, priority=nftables.RAW)
    rules = [nftables.rule(table, "probe", *rule)]
    messages = [nftables.add_table(table), chain, *rules, nftables.delete_table(table)]
    with NetlinkSocket(netlink.NETLINK_NETFILTER) as sock:
        try:
            sock.execute_batch(nftables.batch(messages), "look what nftables has")
        except OSError:
            return False
    return True


class Table:
    """All ``tables`` of one name. ``whole`` returns what makes them, as the records are when it is called."""

    def __init__(
        self,
        name: str,
        *,
        tables: Sequence[nftables.Table],
        whole: Callable[[], list[Message]],
    ) -> None:
        self._name = name
        self._tables = tables
        self._whole = whole
        self._socket = NetlinkSocket(netlink.NETLINK_NETFILTER)
        self._generation = 0
        self._rules = 0

    def close(self) -> None:
        """Close the socket; the tables stay."""
        self._socket.close()

    def replace(self) -> None:
        """Make the tables what they should be, whatever they are."""
        self._execute(self._whole(), f"set up nftables table {self._name}")
        self._generation = nftables.generation(self._socket)
        self._rules = self._count()

    def change(self, messages: Sequence[Message], call: str) -> None:
        """Apply a change that the records show already."""
        for _ in range(_TRIES):  # another engine may always be faster
            try:
                if self._try(messages, call):
                    return
            except FileNotFoundError:  # something of it is gone, the generation was right
                break
            if not self._is_whole():
                break
        self._restore()

    def look(self) -> None:
        """Restore the tables if somebody took something from them."""
        if nftables.generation(self._socket) != self._generation and not self._is_whole():
            self._restore()

    def _is_whole(self) -> bool:
        """Say whether all rules are there, although somebody changed something somewhere."""
        generation = nftables.generation(self._socket)
        if self._count() != self._rules:
            return False
        self._generation = generation
        return True

    def _restore(self) -> None:
        log.warning("nftables table %s was changed by somebody else, restoring it", self._name)
        self.replace()

    def remove(self) -> None:
        """Delete the tables, there or not."""
        messages = [message for table in self._tables for message in firewall.removal(table)]
        self._execute(messages, f"delete nftables table {self._name}")

    def _count(self) -> int:
        return sum(nftables.count_rules(self._socket, table) for table in self._tables)

    def _try(self, messages: Sequence[Message], call: str) -> bool:
        transaction = nftables.batch(messages, generation=self._generation)
        try:
            self._socket.execute_batch(transaction, call)
        except OSError as error:
            if error.errno == errno.ERESTART:
                return False
            raise
        self._generation += 1
        return True

    def _execute(self, messages: Sequence[Message], call: str) -> None:
        self._socket.execute_batch(nftables.batch(messages), call)
