"""What berthd asks of the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from berth.errors import Unsupported
from berth.runtime import documents
from berth.runtime.requests import DefaultSpec, OverlayRootfs, TaskRequest

if TYPE_CHECKING:
    from berth.oci.runtime_spec import Spec

DEFAULTS = DefaultSpec(spec={"mounts": [], "linux": {}}, group="/berth/std")
PLAIN: Spec = {"linux": {"namespaces": [{"type": "mount"}]}}
HOOKS: Spec = {**PLAIN, "hooks": {"prestart": [{"path": "/bin/true"}]}}
DEVICES: Spec = {"linux": {"namespaces": [], "netDevices": {"eth9": {"name": "eth0"}}}}


def request(spec: Spec) -> TaskRequest:
    rootfs = OverlayRootfs(base=Path("/"), lower=("a",), upper="b", work="c")
    return TaskRequest(id="one", directory=Path("/one"), spec=spec, rootfs=rootfs)


@pytest.mark.parametrize(("spec", "is_special"), [(PLAIN, None), (HOOKS, True), (DEVICES, True)])
def test_only_containers_with_hooks_are_made_with_them_in_mind(
    spec: Spec, is_special: bool | None
) -> None:
    document, _ = documents.of_task(request(spec), DEFAULTS, "/bin")
    assert document.get("hooks") is is_special
    assert document.get("search") == ("/bin" if is_special else None)


@pytest.mark.parametrize("spec", [HOOKS, DEVICES])
def test_what_has_hooks_is_not_restored(spec: Spec) -> None:
    with pytest.raises(Unsupported, match="cannot be restored"):
        documents.of_restore(request(spec), DEFAULTS, "/bin")
