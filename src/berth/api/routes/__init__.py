"""The routes of the Engine API, one module a noun: parameters in, documents out. No container logic."""
