"""Benchmarks: what is measured, against what, and under which conditions. `python -m tests.benchmarks --help`."""
