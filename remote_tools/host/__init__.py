"""What runs on the host: sent there as it is, so standard library only, Python >= 3.8, relative imports."""
