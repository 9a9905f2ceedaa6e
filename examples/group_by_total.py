"""Adds up what the elements of examples/group_by_part.py printed. Runs here, not on the grid.

gridx output 17 --all | python examples/group_by_total.py
"""

import json
import sys
from collections import Counter

rows, shops, months = 0, Counter(), Counter()
for line in sys.stdin:
    part = json.loads(line)
    rows += part["rows"]
    for shop, month, total in part["sums"]:
        shops[shop] += total
        months[month] += total

print(f"{rows:,} sales")
for shop, total in shops.most_common():
    print(f"{shop:10} {total:14,.2f}")
best, total = months.most_common(1)[0]
print(f"best month: {best}, {total:,.2f}")
