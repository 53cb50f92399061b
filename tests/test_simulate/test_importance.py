from dataclasses import replace

import numpy as np
import pytest
from numpy.random import SeedSequence
from numpy.testing import assert_allclose
from strategies import EPS

from simulate import Empirical, Gaussian, Laplace
from simulate.backends import NUMPY
from simulate.discrepancy import Discrepancy
from simulate.laws import pre_activation_law
from simulate.placements import State
from simulate.proposals import PLAIN, proposal_for
from simulate.samplers import Simulation, Span, weighted

K, SIGMA, AT = 10.0, 1.0, 4.0
SKEWED = [[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]]
CORRELATION = [[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]]


def two_kinks(x):
    return np.maximum(x - AT, 0) + np.maximum(x + AT, 0)


def one_kink(x):
    return np.maximum(x + AT, 0)


def simulation(f, *, k=K, **law):
    law = pre_activation_law(k, SIGMA, **law)
    return Simulation(law, Discrepancy(f, law.weights, None, NUMPY), NUMPY)


def test_a_missed_kink_costs_variance_and_no_bias():
    n, seed = 2**18, SeedSequence(6)
    seeing = simulation(two_kinks).weighted()
    proposal = simulation(one_kink).weighted().proposal
    # Nothing of the proposal lies near the second kink.
    assert proposal.bending.below(np.array([0.0]), NUMPY) == 1.0
    missing = replace(seeing, proposal=proposal)
    # A convex f's losses add up: each kink has V / (4 k), far from the ends.
    expected = 2 * SIGMA**2 / 2 / (4 * K)
    found = [weighted(s, Span(0, n, n), seed) for s in (seeing, missing)]
    for moments in found:
        assert moments.stderr < 0.03 * expected
        assert abs(moments.mean - expected) < 5 * moments.stderr
    assert found[1].stderr > 4 * found[0].stderr


@pytest.mark.parametrize(
    "inputs",
    [
        3.0,
        Gaussian(4.0),
        Laplace(2.0),
        Gaussian(0.2),
        Empirical(np.linspace(-6, 6, 41)),
        Empirical(np.array([-0.1, 0.0, 0.2])),
    ],
    ids=["uniform", "gaussian", "laplace", "narrow", "sample", "narrow sample"],
)
@pytest.mark.parametrize("correlation", [0.0, CORRELATION], ids=["apart", "together"])
def test_weights_are_a_ratio_of_densities(inputs, correlation):
    """Bounded, of mean 1, and they give back the law's own moments."""
    law = pre_activation_law(
        inputs,
        SIGMA,
        q=3,
        weights=[0.2, 0.3, 0.5],
        cov=SKEWED,
        nodes=3,
        correlation=correlation,
    )
    loss = Discrepancy(np.tanh, law.weights, None, NUMPY)
    law = law.aligned()
    proposal, n = proposal_for(law, loss), 2**18
    rng = np.random.default_rng(9)
    u = law.scores(rng.random((law.base, n)), NUMPY)
    z = law.mixed(rng.standard_normal((law.rank, law.base, n)), NUMPY)
    plain = State(u, law.inputs.quantile(u, NUMPY), z)
    t = rng.random((2, n))
    state, ratio = proposal.moved(t, plain)
    weight = proposal.weight(t, ratio)
    assert weight.max() <= 1 / PLAIN
    h = law.pre_activations(state.x, state.z + 0.0, NUMPY).reshape(9, n)
    x = law.inputs.quantile((np.arange(12300) + 0.5) / 12300, NUMPY)
    errors = np.kron(SKEWED, np.eye(3) if correlation == 0.0 else CORRELATION)
    apart = errors[0, 1] - errors[0, 4] - errors[3, 1] + errors[3, 4]
    for values, expected in [
        (weight, 1.0),
        (weight * h[0], x.mean()),
        (weight * h[4], x.mean()),
        # Two models at one node, and their differences at two nodes.
        (weight * h[0] * h[3], (x * x).mean() + SIGMA**2 * errors[0, 3]),
        (weight * (h[0] - h[3]) * (h[1] - h[4]), SIGMA**2 * apart),
    ]:
        stderr = values.std(ddof=1) / np.sqrt(n)
        assert stderr < 0.03 * np.abs(values).mean()
        assert abs(values.mean() - expected) < 5.5 * stderr


@pytest.mark.parametrize("half_width", [K, 300.0, 1e6])
def test_plain_samples_count_only_where_the_proposal_sees_no_bend(half_width):
    """Where it does they are rare, and each would move a sharp estimate by as much."""
    n, rng = 2**12, np.random.default_rng(7)
    seeing = simulation(two_kinks, k=half_width).weighted()
    proposal = simulation(one_kink, k=half_width).weighted().proposal
    missing = replace(seeing, proposal=proposal)
    # Plain by their first coordinate, and within a few errors of the second kink.
    t = np.stack([PLAIN * rng.random(n), rng.random(n)])
    x = AT + SIGMA * rng.uniform(-4, 4, n)
    v, z = (x / half_width + 1)[None] / 2, rng.standard_normal((2, 1, n))
    assert not seeing.weighted_sample(t, v, z.copy()).any()
    plain = seeing.sample(v, z.copy())
    assert plain.max() > 0.1 * SIGMA
    # Rounding of numbers of the inputs' size.
    assert_allclose(
        missing.weighted_sample(t, v, z.copy()),
        plain / PLAIN,
        rtol=0,
        atol=8 * EPS * half_width / PLAIN,
    )


def test_a_bend_that_only_errors_reach_is_seen():
    def beyond(x):
        return np.maximum(x - K - 4 * SIGMA, 0)

    assert simulation(beyond).weighted().proposal is not None


def test_nothing_to_see_needs_no_proposal():
    assert simulation(lambda x: 2 * x).weighted().proposal is None
    assert simulation(np.tanh, cov=np.ones((2, 2))).weighted().proposal is None
    assert simulation(np.tanh, q=1).weighted().proposal is None
