"""Thin typed functions over kernel interfaces: no policy, no knowledge of containers."""
