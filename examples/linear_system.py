"""A system of linear equations with numpy: solve it, and say how exact the answer is."""

import numpy as np

SIZE = 500

rng = np.random.default_rng(42)
# A heavy diagonal keeps the system well conditioned.
matrix = rng.normal(size=(SIZE, SIZE)) + SIZE * np.eye(SIZE)
truth = rng.normal(size=SIZE)
solution = np.linalg.solve(matrix, matrix @ truth)

print(f"{SIZE} equations with {SIZE} unknowns, condition number {np.linalg.cond(matrix):.2f}")
print(f"largest error: {np.max(np.abs(solution - truth)):.1e}")
