"""Counts the primes of one block of numbers; an array counts those of many blocks at once.

gridx map examples/primes.py --range 0-99
gridx output ID --all | awk '{sum += $NF} END {print sum}'
"""

import os

BLOCK = 10_000

index = int(os.environ.get("GRIDX_INDEX", "0"))
count = int(os.environ.get("GRIDX_COUNT", "1"))
first, end = index * BLOCK, (index + 1) * BLOCK

sieve = bytearray([1]) * end
sieve[:2] = b"\0\0"[:end]
for number in range(2, int(end**0.5) + 1):
    if sieve[number]:
        sieve[number * number :: number] = bytes(len(range(number * number, end, number)))

print(f"block {index} of {count}, {first:,} to {end - 1:,}:", sum(sieve[first:end]))
