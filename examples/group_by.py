"""Group and sum with pandas, on sales that it makes up: jobs have no network to fetch data from."""

import numpy as np
import pandas as pd

ROWS = 100_000

rng = np.random.default_rng(42)
sales = pd.DataFrame(
    {
        "shop": rng.choice(["north", "east", "south", "west"], ROWS),
        "month": rng.integers(1, 13, ROWS),
        "items": rng.poisson(3, ROWS) + 1,
    }
)
sales["revenue"] = (sales["items"] * rng.uniform(2, 20, ROWS)).round(2)

by_shop = sales.groupby("shop")["revenue"].agg(["count", "sum", "mean"]).round(2)
print(by_shop.sort_values("sum", ascending=False).to_string())
best = sales.groupby("month")["revenue"].sum().idxmax()
print(f"best month: {best}")
