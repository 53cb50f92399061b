import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from mloss import find_sites, score
from mloss.activations import resolve
from mloss.data_free import assumed_moments
from mloss.density import density_prediction, normal_points

MEANS, SPREADS = [0.0, 0.5, -1.5], [1.0, 2.0, 0.7]


def points():
    mean = torch.tensor(MEANS, dtype=torch.float64)
    return normal_points(mean, torch.tensor(SPREADS, dtype=torch.float64).square())


def bend(x):
    return norm.pdf(x) * (2 - x * x)


def test_for_a_normal_base_it_is_half_the_mean_bend_times_variance():
    variance = torch.full((3,), 1e-4, dtype=torch.float64)
    ours = density_prediction(functional.gelu, points(), variance)
    for mean, spread, value in zip(MEANS, SPREADS, ours.tolist(), strict=True):
        law = norm(mean, spread)
        exact, _ = quad(
            lambda x, law=law: abs(bend(x)) * law.pdf(x),
            -9,
            9,
            points=(-(2**0.5), 2**0.5),
        )
        # Silverman's bandwidth b smooths f'' over b^2 / 6 of its own curvature, which
        # is at most 6 times f'' where that matters; 256 points leave far less.
        b = 1.06 * spread * 256**-0.2
        assert value == pytest.approx(exact * 1e-4 / 2, rel=b * b)


def test_for_a_kink_it_is_the_density_there():
    variance = torch.full((3,), 1e-6, dtype=torch.float64)
    ours = density_prediction(torch.relu, points(), variance)
    for mean, spread, value in zip(MEANS, SPREADS, ours.tolist(), strict=True):
        b = 1.06 * spread * 256**-0.2
        # A triangular kernel of half-width b has the variance b^2 / 6: smoothed so,
        # the density at z standard deviations changes by (z^2 - 1) b^2 / 12 spread^2
        # of itself, and at second order by less than half of that again.
        z = mean / spread
        bias = abs(z * z - 1) * (b / spread) ** 2 / 12
        density = norm.pdf(0, mean, spread)
        assert value == pytest.approx(density * 1e-6 / 2, rel=1.5 * bias + 0.01)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh"])
def test_nodes_at_rest_have_no_loss(name):
    variance = torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64)
    base = points()
    base[:, 2] = 1.0
    ours = density_prediction(resolve(name), base, variance)
    assert ours[[0, 2]].tolist() == [0, 0]
    assert 0 < ours[1] < math.inf


class Normalised(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm, self.fc = norm, nn.Linear(64, 5)

    def forward(self, x):
        return functional.gelu(self.fc(self.norm(x)))


def family(norm):
    torch.manual_seed(0)
    base, *sources = (Normalised(norm(64)).double() for _ in range(3))
    for model in (base, *sources):
        nn.init.normal_(model.norm.weight, 1, 0.3)
    nn.init.normal_(base.fc.bias)
    for source in sources:
        moved = {
            key: value + 0.02 * torch.randn_like(value)
            for key, value in base.state_dict().items()
        }
        source.load_state_dict(moved)
    return base, sources


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_without_samples_the_moments_are_those_of_a_standardised_input(norm):
    base, sources = family(norm)
    (site,) = find_sites(base, torch.ones(1, 64, dtype=torch.float64))
    assert site.fed_by == "norm"
    states = [model.state_dict() for model in sources]
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    ours = assumed_moments(site, base.state_dict(), states, weights=weights)
    z = torch.randn(100_000, 64, dtype=torch.float64)
    with torch.no_grad():
        x = z * base.norm.weight + getattr(base.norm, "bias", 0)
        h, *others = (model.fc(x) for model in (base, *sources))
        d = torch.stack([other - h for other in others])
        mixed = torch.einsum("i,isn->sn", weights, d)
        jensen = torch.einsum("i,isn->sn", weights, d.square()) - mixed.square()
    for found, drawn in (
        (ours.mean, h),
        (ours.variance, (h - ours.mean).square()),
        (ours.jensen_variance, jensen),
    ):
        stderr = drawn.std(dim=0) / math.sqrt(len(z))
        # 30 comparisons in the family: one of them passes 5 in 60,000 seeds.
        assert ((drawn.mean(dim=0) - found).abs() < 5 * stderr).all()


def test_both_predictions_stand_beside_the_measurement():
    base, sources = family(nn.LayerNorm)
    data = torch.randn(2000, 64, dtype=torch.float64)
    (site,) = score(base, sources, data, inputs="base").sites
    for prediction in (site.density_prediction, site.data_free_prediction):
        # Gaussian inputs, small shifts: the law's own terrain, up to 256 tokens' and
        # the bandwidth's error.
        assert_close(prediction, site.node, rtol=0.25, atol=0)


def test_without_a_norm_nothing_is_known_without_samples():
    torch.manual_seed(0)
    base, *sources = (nn.Sequential(nn.Linear(4, 3), nn.ReLU()) for _ in range(3))
    (site,) = score(base, sources, torch.randn(9, 4)).sites
    assert site.data_free_prediction is None
    assert site.density_prediction is not None
