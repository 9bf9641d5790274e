"""Measurements with their circumstances; `benchmarks/README.md` has the commands and results."""
