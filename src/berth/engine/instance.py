"""The names by which several engines on one machine stay apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from berth.oci.digest import sha256

DEFAULT_DATA_ROOT = Path("/var/lib/berth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One engine's names for kernel objects, derived from its data root."""

    name: str
    bridge: str
    table: str
    cgroup: str

    @classmethod
    def of(cls, data_root: Path) -> Instance:
        """Name the engine whose state is under ``data_root`` (absolute)."""
        if data_root == DEFAULT_DATA_ROOT:
            return cls(name="default", bridge="berth0", table="berth", cgroup="berth")
        name = sha256(str(data_root).encode()).hex()[:8]
        return cls(name=name, bridge=f"br-{name}", table=f"berth-{name}", cgroup=f"berth-{name}")
