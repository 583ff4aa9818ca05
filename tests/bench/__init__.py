"""Benchmarks of the whole service as real processes: `python -m tests.bench <suite>`.

A suite prints a table to stderr and its figures as JSON to stdout. What depends on the machine's speed is given
as a ratio to what latency and concurrency alone allow, too.
"""
