"""The system tests' engine and clients, in a virtual machine (`support.in_machine`)."""

from system.conftest import (  # noqa: F401 - fixtures
    berth_cli,
    berth_oci,
    bundle,
    busybox_tar,
    cli,
    docker_cli,
    engine,
    fresh_engine,
    inside,
    oci,
    session_engine,
)
