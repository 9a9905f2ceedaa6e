"""Writes the data that other examples are given: sales.csv and flowers.csv. Runs here, not on the grid.

python examples/make_data.py [ROWS]
"""

import csv
import random
import sys

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
SHOPS = ("north", "east", "south", "west")
# Length and width of petals and sepals, and how much they vary, by kind of flower.
KINDS = {
    "setosa": (5.0, 3.4, 1.5, 0.2),
    "versicolor": (5.9, 2.8, 4.3, 1.3),
    "virginica": (6.6, 3.0, 5.6, 2.0),
}

rng = random.Random(42)
with open("sales.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(("shop", "month", "items", "revenue"))
    for _ in range(ROWS):
        items = rng.randint(1, 9)
        rows.writerow((rng.choice(SHOPS), rng.randint(1, 12), items, f"{items * rng.uniform(2, 20):.2f}"))

with open("flowers.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(("sepal_length", "sepal_width", "petal_length", "petal_width", "kind"))
    for number in range(300):
        kind = list(KINDS)[number % 3]
        rows.writerow((*(f"{rng.gauss(size, 0.3):.2f}" for size in KINDS[kind]), kind))

print(f"sales.csv has {ROWS:,} rows, flowers.csv 300")
