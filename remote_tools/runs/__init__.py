"""One run: its target, its output, its record, its results."""
