"""Our methods against mergekit's own, on the same tensors (docs/peers.md)."""

import pytest
import torch
from families import EPS32, family, same

from mloss import merge

mergekit = pytest.importorskip("mergekit.merge_methods", reason="needs mergekit")

WEIGHTS = [0.5, 0.3, 0.2]


def ours(method, base, sources, **options):
    return merge(base, sources, method=method, **options).state


def theirs(method, models, *, base=0, **parameters):
    with torch.no_grad():
        return mergekit.merge_state_dicts(
            models, method, base=base, parameters=parameters
        )


def test_average_is_linear():
    base, sources = family()
    merged = theirs("linear", sources, base=None, weight=WEIGHTS)
    same(ours("average", base, sources, weights=WEIGHTS), merged)


def test_task_arithmetic_is_theirs_with_lambda_for_scale():
    base, sources = family()
    merged = theirs(
        "task_arithmetic", [base, *sources], weight=WEIGHTS, **{"lambda": 0.7}
    )
    same(ours("task_arithmetic", base, sources, weights=WEIGHTS, scale=0.7), merged)


@pytest.mark.parametrize(
    ("combine", "normalize"), [("disjoint_mean", True), ("weighted_sum", False)]
)
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_is_theirs_where_a_budget_is_whole(density, combine, normalize):
    # 600, 20, 200 and 10 entries: both keep the same number of each tensor.
    base, sources = family()
    merged = theirs(
        "ties",
        [base, *sources],
        weight=WEIGHTS,
        density=density,
        normalize=normalize,
        **{"lambda": 0.7},
    )
    options = {"density": density, "scale": 0.7, "combine": combine}
    same(ours("ties", base, sources, weights=WEIGHTS, **options), merged)


def test_a_budget_is_rounded_by_us_and_cut_by_them():
    # 0.19 of 10 entries is 1.9.
    base, sources = {"bias": torch.zeros(10)}, [{"bias": torch.arange(1.0, 11)}]
    rounded = ours("ties", base, sources, density=0.19)["bias"]
    cut = theirs("ties", [base, *sources], weight=1, density=0.19)["bias"]
    assert rounded.count_nonzero() == 2
    assert cut.count_nonzero() == 1


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_that_drops_nothing_is_theirs(method):
    base, sources = family()
    merged = theirs(method, [base, *sources], weight=WEIGHTS, density=1.0)
    drawn = {"generator": torch.Generator().manual_seed(0), "density": 1.0}
    same(ours(method, base, sources, weights=WEIGHTS, **drawn), merged)


def test_dare_rescales_by_the_density_and_theirs_to_the_norm_of_a_tensor():
    torch.manual_seed(0)
    n, density = 40_000, 0.2
    step = torch.rand(n, dtype=torch.float64) + 0.5
    base, source = {"w": torch.zeros(n, dtype=torch.float64)}, {"w": step}
    drawn = {"generator": torch.Generator().manual_seed(0), "density": density}
    scaled = ours("dare_linear", base, [source], **drawn)["w"]
    merged = theirs("dare_linear", [base, source], weight=1, density=density)["w"]
    # Five standard errors of a binomial share.
    error = 5 * (density * (1 - density) / n) ** 0.5
    for kept in (scaled != 0, merged != 0):
        assert abs(kept.double().mean() - density) < error
    assert ((scaled == 0) | (scaled == step / density)).all()
    factors = (merged / step)[merged != 0]
    # They work in float32, whatever the models are in.
    assert factors.max() - factors.min() < 8 * EPS32 * factors.max()
    assert abs(merged.abs().sum() / step.sum() - 1) < 64 * EPS32


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_is_theirs(t):
    base, sources = family(q=2)
    merged = theirs("slerp", sources, t=t)
    same(ours("slerp", base, sources, weights=[1 - t, t]), merged)


@pytest.mark.parametrize(("per", "filter_wise"), [("tensor", False), ("row", True)])
def test_model_stock_is_theirs_where_sources_agree(per, filter_wise):
    base, sources = family()
    merged = theirs("model_stock", [base, *sources], filter_wise=filter_wise)
    same(ours("model_stock", base, sources, per=per), merged)
