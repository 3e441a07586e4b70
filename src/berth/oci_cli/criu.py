"""`checkpoint` and `restore`: refused for now, by name."""

from __future__ import annotations

from berth.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from berth.oci_cli.invocation import Invocation


def do_checkpoint(call: Invocation) -> NoReturn:
    """Refuse."""
    raise Unsupported(
        f"cannot checkpoint container {call.id}: berth-oci does not speak to criu yet"
    )


def do_restore(call: Invocation) -> NoReturn:
    """Refuse."""
    raise Unsupported(f"cannot restore container {call.id}: berth-oci does not speak to criu yet")
