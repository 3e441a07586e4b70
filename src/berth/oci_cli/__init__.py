"""The `berth-oci` command: what callers of an OCI runtime call."""
