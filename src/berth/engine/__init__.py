"""Containers' lives: records, status, restarts, events; composes the services below."""
