"""OCI data: references, digests, platforms, image and runtime documents. No I/O."""
