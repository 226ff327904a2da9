"""The settings: every place that may hold one, and who wins."""
