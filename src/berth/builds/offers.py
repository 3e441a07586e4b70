"""What a build's client lends it while it lasts: secrets, agents that hold keys of ssh, credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


class Offers(Protocol):
    """A client's secrets and agents; nothing of them is kept."""

    async def secret(self, id_: str) -> bytes | None:
        """Return a secret; None when the client has none of this id."""

    async def credentials(self, server: str) -> str:
        """Return the client's credentials for a registry as X-Registry-Auth has them; "" for none."""

    async def agent(self, id_: str) -> AbstractAsyncContextManager[Path] | None:
        """Give an agent: the path of a unix socket, made for this use of it alone, while the context lasts.

        The caller may give the socket to another user. None when the client has no agent of this id.
        """


class NoOffers:
    """What a client has to offer that only sends a context."""

    async def secret(self, id_: str) -> bytes | None:
        """See Offers."""
        del id_
        return None

    async def credentials(self, server: str) -> str:
        """See Offers."""
        del server
        return ""

    async def agent(self, id_: str) -> AbstractAsyncContextManager[Path] | None:
        """See Offers."""
        del id_
        return None


NO_OFFERS: Offers = NoOffers()
