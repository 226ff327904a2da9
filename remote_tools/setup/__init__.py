"""Make a host ready and check it; the sandbox host."""
