"""The cache: journals, results, and the files that others read."""
