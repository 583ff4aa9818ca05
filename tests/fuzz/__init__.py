"""A fuzzer of the receiver: `python -m tests.fuzz --inputs 1000000 --seed 1`.

`deliveries` invents inputs from a seed, `receiver` gives them to the real app in this process and, as raw
bytes, to the real server, and `verdict` says what no input may do.
"""
