"""Where candidates are built, run, checked and timed."""
