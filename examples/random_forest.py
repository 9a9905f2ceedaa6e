"""A random forest with scikit-learn, on the wines that the library carries; prints its score."""

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

wines = load_wine()
train_x, test_x, train_y, test_y = train_test_split(
    wines.data, wines.target, test_size=0.3, random_state=42, stratify=wines.target
)
forest = RandomForestClassifier(n_estimators=100, random_state=42).fit(train_x, train_y)

print(f"{len(train_x)} wines to learn from, {len(test_x)} to be tested on")
print(f"accuracy: {forest.score(test_x, test_y):.3f}")
ranked = sorted(zip(forest.feature_importances_, wines.feature_names, strict=True), reverse=True)
print("what tells them apart: " + ", ".join(name for _, name in ranked[:3]))
