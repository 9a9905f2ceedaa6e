"""Pi from random points in a square, with the standard library alone; output comes while it runs."""

import math
import random
import sys

POINTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
ROUNDS = 5

rng = random.Random(42)
inside = done = 0
for _ in range(ROUNDS):
    for _ in range(POINTS // ROUNDS):
        x, y = rng.random(), rng.random()
        inside += x * x + y * y <= 1
    done += POINTS // ROUNDS
    print(f"{done:>10,} points: pi is about {4 * inside / done:.5f}", flush=True)
print(f"off by {abs(4 * inside / done - math.pi):.5f}")
