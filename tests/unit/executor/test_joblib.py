"""joblib, and scikit-learn over it, with the grid as backend."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from conftest import wait_for
from kit.pretended import jobs_of

from gridx.messages import JobState

joblib = pytest.importorskip("joblib")


@pytest.fixture
def backend(executor) -> Iterator[None]:
    import gridx.joblib

    gridx.joblib.register(executor=executor)
    with joblib.parallel_config("gridx"):
        yield


def square(number):
    return number * number


def test_calls_run_on_the_grid_and_come_back_in_order(backend, pretended):
    assert joblib.Parallel()(joblib.delayed(square)(number) for number in range(10)) == [
        number * number for number in range(10)
    ]
    assert pretended.specs
    assert {spec.name for spec in pretended.specs.values()} == {"joblib"}


def test_as_many_jobs_as_the_fleet_has_cores_for(backend):
    assert joblib.effective_n_jobs(-1) == 4
    assert joblib.effective_n_jobs(3) == 3


def test_results_can_be_had_as_they_come(backend):
    results = joblib.Parallel(return_as="generator")(joblib.delayed(square)(n) for n in range(4))
    assert next(results) == 0
    assert list(results) == [1, 4, 9]


def test_an_exception_is_raised_and_the_rest_is_ended(backend, pretended):
    def some(number):
        if number == 0:
            raise KeyError(number)
        time.sleep(3600)

    with pytest.raises(KeyError):
        joblib.Parallel(n_jobs=4)(joblib.delayed(some)(number) for number in range(20))
    wait_for(lambda: not jobs_of(pretended, JobState.QUEUED, JobState.RUNNING), "everything to be over")


def test_a_forest_of_scikit_learn_is_fitted_on_ones_own_machine(backend, pretended):
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    flowers = load_iris()
    forest = RandomForestClassifier(n_estimators=4, n_jobs=2, random_state=1)
    forest.fit(flowers.data, flowers.target)
    assert pretended.specs
    assert forest.score(flowers.data, flowers.target) > 0.9


def test_a_search_of_scikit_learn_runs_on_the_grid(backend, pretended):
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    flowers = load_iris()
    search = GridSearchCV(DecisionTreeClassifier(random_state=1), {"max_depth": [1, 3]}, cv=2, n_jobs=-1)
    search.fit(flowers.data, flowers.target)
    assert search.best_params_ == {"max_depth": 3}
    assert pretended.specs
