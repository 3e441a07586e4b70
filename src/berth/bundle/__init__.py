"""One container from an OCI bundle: made, started, joined and removed, with nothing that stays behind it."""
