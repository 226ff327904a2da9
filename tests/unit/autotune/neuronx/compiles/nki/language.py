"""Stands in for `nki.language`."""
