"""The version of the package, in a module of its own: what it names is recorded with every result."""

__version__ = "0.1.0"
