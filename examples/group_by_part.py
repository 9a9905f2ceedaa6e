"""A part of a group-by over sales.csv, which the job is given: an element of an array takes its own rows.

    gridx map examples/group_by_part.py --range 0-7 --input sales.csv --memory 1G

Prints a line of JSON; examples/group_by_total.py adds the parts up.
"""

import json
import os

import pandas as pd

# An array says how many elements it has, and which one this is; without one, this is all there is.
index, count = int(os.environ.get("GRIDX_INDEX", 0)), int(os.environ.get("GRIDX_COUNT", 1))

sums, rows = None, 0
# By pieces, so that a part needs the memory of a piece: one in `count` is this element's.
for number, piece in enumerate(pd.read_csv("sales.csv", chunksize=10_000)):
    if number % count == index:
        rows += len(piece)
        part = piece.groupby(["shop", "month"])["revenue"].sum()
        sums = part if sums is None else sums.add(part, fill_value=0)

found = [] if sums is None else [[shop, month, round(total, 2)] for (shop, month), total in sums.items()]
print(json.dumps({"part": index, "rows": rows, "sums": found}))
