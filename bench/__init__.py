"""berth beside dockerd and podman on this machine: `python -m bench [--quick]`."""
