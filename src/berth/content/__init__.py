"""The content store: blobs by digest, verified on write and read."""
