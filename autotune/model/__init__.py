"""What is tuned, and what came of it: plain data, no process and no file."""
