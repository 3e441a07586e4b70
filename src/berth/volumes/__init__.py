"""Volumes: directories of the engine that outlive containers."""
