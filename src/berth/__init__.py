"""berth: a container engine in pure Python."""

__version__ = "0.1.0"
