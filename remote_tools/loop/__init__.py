"""Sync, run and fetch in one command, on one host or several."""
