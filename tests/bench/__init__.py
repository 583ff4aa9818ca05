"""Benchmarks of the whole service as real processes: `python -m tests.bench <suite>`.

A suite prints a table to stderr and its figures as JSON to stdout. Elapsed time is also given as a ratio
to what latency and concurrency alone allow.
"""
