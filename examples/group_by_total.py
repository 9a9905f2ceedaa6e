"""Adds up what the elements of examples/group_by_part.py printed. Runs here, not on the grid.

gridx output 17 --all | python examples/group_by_total.py
"""

import json
import sys
from collections import Counter

rows, shops, months = 0, Counter(), Counter()
for line in sys.stdin:
    told = json.loads(line)
    # Each line is an element's output, or tells of it.
    part = json.loads(told["output"]) if "output" in told else told
    rows += part["rows"]
    for shop, month, total in part["sums"]:
        shops[shop] += total
        months[month] += total

print(f"{rows:,} sales")
for shop, total in shops.most_common():
    print(f"{shop:10} {total:14,.2f}")
best, total = months.most_common(1)[0]
print(f"best month: {best}, {total:,.2f}")
