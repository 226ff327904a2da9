"""Connect to a host: the shared connection, the sessions over it, and Fabric's API."""
