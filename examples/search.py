"""A search of scikit-learn whose fits run on the grid, over joblib. Runs here, its fits run there.

python examples/search.py
"""

import joblib
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier

import gridx.joblib

gridx.joblib.register(cpus=0.5, memory_mb=512, timeout_s=120)

wines = load_wine()
search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5]}, cv=2)
with joblib.parallel_config("gridx", n_jobs=2):
    search.fit(wines.data, wines.target)

print(
    f"best of {len(search.cv_results_['params'])}: {search.best_params_}, accuracy {search.best_score_:.3f}"
)
