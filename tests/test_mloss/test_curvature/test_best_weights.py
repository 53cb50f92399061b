import numpy as np
import pytest
from quadratic_pool import inputs, models, two_layers

from mloss.curvature import best_weights, confirm, gap_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pool")
    return gap_pool(two_layers(), models(6), data=inputs(), directory=directory)


@pytest.mark.parametrize("members", [(0, 3), (1, 2, 5), (0, 2, 3, 4)])
def test_nothing_nearby_is_better(pool, members):
    found = best_weights(pool, members)
    within = pool.among(members)
    ensemble = list(found.ensemble)
    assert sum(found.weights) == pytest.approx(1)
    assert found.predicted_gap < within.predicted_gap(ensemble)
    rng = np.random.default_rng(0)
    for step in (1e-1, 1e-2, 1e-3):
        for direction in rng.dirichlet(np.ones(len(members)), size=30):
            mixed = (1 - step) * np.array(found.weights) + step * direction
            nearby = within.predicted_gap(mixed.tolist(), ensemble=ensemble)
            # Descent stops where a step changes the distance by less than 1e-6.
            assert nearby >= found.predicted_gap - 1e-6


def test_the_ensembles_weights_are_the_members(pool):
    found = best_weights(pool, (5, 1), ensemble=[0.25, 0.75])
    assert (found.members, found.ensemble) == ((5, 1), (0.25, 0.75))
    swapped = best_weights(pool, (1, 5), ensemble=[0.75, 0.25])
    assert found.weights[::-1] == pytest.approx(swapped.weights, abs=1e-6)


def test_confirmed_by_measurement(pool):
    chosen = [best_weights(pool, members) for members in [(0, 3), (1, 2, 5)]]
    confirmed = confirm(two_layers(), models(6), chosen, data=inputs().split(3))
    assert {c.candidate for c in confirmed} == set(chosen)
    assert confirmed[0].gap <= confirmed[1].gap
    for each in confirmed:
        # Pairs are kept in float32.
        assert each.gap == pytest.approx(each.candidate.predicted_gap, rel=1e-6)
        assert 0 < each.stderr < each.gap


def test_refusals(pool):
    with pytest.raises(ValueError, match="at least two models"):
        best_weights(pool, [3])
    with pytest.raises(ValueError, match="names a model twice"):
        best_weights(pool, [3, 3])
    with pytest.raises(ValueError, match="models 0 to 5, got 6"):
        best_weights(pool, [3, 6])
    with pytest.raises(ValueError, match="sum to 1"):
        best_weights(pool, [3, 4], ensemble=[1, 1])
