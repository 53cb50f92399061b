"""What a pool foretells of merges of three to five trained models, against gaps."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from mloss.curvature import Candidate, confirm, gap_pool, rank_subsets


@pytest.fixture(scope="module")
def family(digits):
    tuned = digits.fine_tunes[::2]  # every task, each learning rate four times
    sources = [each.state for each in tuned]
    return digits.encoder(), sources, digits.unlabelled(64)


@pytest.fixture(scope="module")
def pool(family, tmp_path_factory):
    model, sources, data = family
    return gap_pool(
        model, sources, data=data, directory=tmp_path_factory.mktemp("pool")
    )


def drawn(pool, *, size, count, rng):
    """Random subsets with random weights."""
    for _ in range(count):
        members = rng.choice(pool.models, size, replace=False).tolist()
        weights = tuple(rng.dirichlet(np.full(size, 4.0)).tolist())
        predicted = pool.among(members).predicted_gap(weights)
        yield Candidate(tuple(members), weights, weights, predicted)


@pytest.mark.parametrize("size", [3, 5])
def test_random_subsets_and_weights_are_ordered_and_sized(family, pool, size):
    model, sources, data = family
    rng = np.random.default_rng(0)
    candidates = list(drawn(pool, size=size, count=60, rng=rng))
    found = confirm(model, sources, candidates, data=data)
    predicted = np.array([each.candidate.predicted_gap for each in found])
    measured = np.array([each.gap for each in found])
    # The bounds that docs/gap.md states for pools with measured pairs.
    assert spearmanr(predicted, measured).statistic > 0.9
    assert 0.8 < np.exp(np.log(predicted / measured).mean()) < 1.05


def test_the_best_triples_are_among_the_best_measured(family, pool):
    model, sources, data = family
    everyone = rank_subsets(pool, size=3, top=220).candidates
    measured = [
        c.candidate.members for c in confirm(model, sources, everyone, data=data)
    ]
    assert len(measured) == 220
    foretold = [candidate.members for candidate in everyone[:10]]
    assert measured[0] in foretold
    assert set(foretold) <= set(measured[:20])
