"""This machine: its CPU and compiler, and its measured limits."""
