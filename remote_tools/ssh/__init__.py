"""Reach a host: the shared connection, sessions over it, and Fabric's API."""
