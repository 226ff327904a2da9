"""Stands in for `nki.isa`."""
