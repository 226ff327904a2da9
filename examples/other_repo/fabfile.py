"""`fab` entry: the same tasks as `inv`."""

from tasks import ns

__all__ = ["ns"]
