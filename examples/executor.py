"""Python functions on the grid: primes by ranges, a call each. Runs here, its calls run there.

python examples/executor.py
"""

from gridx import Executor


def primes(first: int, last: int) -> int:
    """How many primes there are from ``first`` to ``last``."""
    return sum(
        all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(first, last)
    )


if __name__ == "__main__":
    starts = range(2, 40_002, 5_000)
    with Executor(cpus=0.5, memory_mb=256, timeout_s=120) as grid:
        counts = list(grid.map(primes, starts, [start + 5_000 for start in starts]))
    for start, count in zip(starts, counts, strict=True):
        print(f"from {start:>6,}: {count} primes")
    print(f"in all: {sum(counts)}")
