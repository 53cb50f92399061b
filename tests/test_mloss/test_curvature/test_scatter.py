import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mloss.curvature.scatter import scatter

EPS = torch.finfo(torch.float64).eps


def state_of(row):
    return {"weight": row.clone(), "count": torch.tensor(3)}


@given(
    raw=st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0]), min_size=2, max_size=6).filter(
        any
    ),
    seed=st.integers(0, 100),
)
def test_outer_products_add_up_to_the_spread(raw, seed):
    weights = torch.tensor(raw, dtype=torch.float64)
    weights /= weights.sum()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(raw), 3, generator=generator, dtype=torch.float64)
    deviations = rows - weights @ rows
    expected = deviations.T @ (weights[:, None] * deviations)
    pairs = list(scatter([state_of(row) for row in rows], weights))
    assert len(pairs) == len(raw) - 1
    found = torch.zeros(3, 3, dtype=torch.float64)
    for c, direction in pairs:
        if c:
            found += c * torch.outer(direction["weight"], direction["weight"])
    # Some 6 models, of sums and products of numbers of size below 4 each.
    assert_close(found, expected, rtol=0, atol=64 * 16 * EPS)


def test_models_that_agree_have_empty_directions():
    row = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    for _, direction in scatter([state_of(row)] * 3, weights):
        assert direction == {}


def test_directions_have_the_dtype_of_the_states():
    states = [state_of(torch.full((2,), x, dtype=torch.bfloat16)) for x in (1.0, 2.0)]
    ((c, direction),) = scatter(states, torch.tensor([0.25, 0.75]).double())
    assert c == 0.25 * 0.75
    assert list(direction) == ["weight"]
    assert direction["weight"].dtype == torch.bfloat16
