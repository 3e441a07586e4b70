"""The registry client: pull images from OCI distribution registries."""
