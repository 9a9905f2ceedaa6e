"""Uses the model that examples/forest_train.py gave back. Runs here, not on the grid.

    python examples/forest_use.py results/forest.pickle 6.1 2.9 4.7 1.4

Loading a pickle runs what is in it: load those of machines whose owners you trust. The same version of
scikit-learn is needed here and in the runtime.
"""

import pickle
import sys

model, *measures = sys.argv[1:]
with open(model, "rb") as file:
    forest = pickle.load(file)
kind = forest.predict([[float(measure) for measure in measures]])[0]
print(f"sepal {measures[0]} x {measures[1]}, petal {measures[2]} x {measures[3]}: {kind}")
