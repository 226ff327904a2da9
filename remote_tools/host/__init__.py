"""The program on the host: sent as source, so standard library only, Python >= 3.8, relative imports."""
