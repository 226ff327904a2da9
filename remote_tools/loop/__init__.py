"""The loop: sync, run and fetch in one command, on one host or several."""
