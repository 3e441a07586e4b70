"""The Docker Engine API over HTTP/1.1: protocol, routes, streams. No container logic."""
