"""A random forest: its data set is an input of the job, and the fitted model a file that comes back.

gridx submit examples/forest_train.py --input flowers.csv --memory 1G
gridx fetch 17 -d results
python examples/forest_use.py results/forest.pickle 6.1 2.9 4.7 1.4
"""

import pickle

import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

flowers = pd.read_csv("flowers.csv")
kinds = flowers.pop("kind")
train_x, test_x, train_y, test_y = train_test_split(
    flowers.to_numpy(), kinds, test_size=0.3, random_state=42, stratify=kinds
)
forest = RandomForestClassifier(n_estimators=100, random_state=42).fit(train_x, train_y)

print(f"{len(train_x)} flowers to learn from, {len(test_x)} to be tested on")
print(f"accuracy: {forest.score(test_x, test_y):.3f}")
with open("out/forest.pickle", "wb") as file:  # what lies in out/ comes back
    pickle.dump(forest, file)
