import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from mloss import merge
from mloss.merging import average, dare, task_arithmetic, ties

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
densities = st.floats(0, 1)
plain = [average, task_arithmetic, ties]


def model(generator):
    return {
        "weight": torch.randn(3, 4, generator=generator, dtype=torch.float64),
        "bias": torch.randn(3, generator=generator, dtype=torch.float64),
        "steps": torch.tensor(7),
    }


def models(seed, *, q):
    """A base, q sources and their weights."""
    generator = torch.Generator().manual_seed(seed)
    base, *sources = (model(generator) for _ in range(q + 1))
    raw = torch.rand(q, generator=generator, dtype=torch.float64)
    return base, sources, (raw / raw.sum()).tolist()


def same(first, second, *, roundings=32):
    """Equal up to roundings of sums of a few numbers no larger than 8."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert_close(value, second[key], rtol=0, atol=8 * roundings * EPS)


def ties_by_hand(base, sources, weights, density, *, divide):
    """Trim, elect and merge one entry at a time."""

    def trimmed(vector):
        count = math.floor(density * len(vector) + 0.5)
        order = sorted(range(len(vector)), key=lambda i: (-abs(vector[i]), i))
        return [x if i in order[:count] else 0.0 for i, x in enumerate(vector)]

    vectors = [
        trimmed([s - b for s, b in zip(source, base, strict=True)])
        for source in sources
    ]
    merged = []
    for start, *steps in zip(base, *vectors, strict=True):
        mass = sum(w * t for w, t in zip(weights, steps, strict=True))
        agree = [(w, t) for w, t in zip(weights, steps, strict=True) if t * mass > 0]
        total = sum(w * t for w, t in agree)
        share = sum(w for w, _ in agree) if divide and agree else 1
        merged.append(start + total / share)
    return merged


@pytest.mark.parametrize("combine", ["weighted_sum", "disjoint_mean"])
@given(seed=seeds, q=st.integers(1, 5), density=densities)
def test_ties_entry_by_entry(combine, seed, q, density):
    base, sources, weights = models(seed, q=q)
    ours = ties(base, sources, weights=weights, density=density, combine=combine)
    for key in ("weight", "bias"):
        expected = ties_by_hand(
            base[key].flatten().tolist(),
            [source[key].flatten().tolist() for source in sources],
            weights,
            density,
            divide=combine == "disjoint_mean",
        )
        expected = torch.tensor(expected, dtype=torch.float64)
        assert_close(ours[key].flatten(), expected, rtol=0, atol=64 * EPS)


@given(seed=seeds, q=st.integers(1, 5))
def test_the_average_is_the_weighted_mean(seed, q):
    base, sources, weights = models(seed, q=q)
    pairs = list(zip(weights, sources, strict=True))
    expected = {k: sum(w * s[k] for w, s in pairs) for k in ("weight", "bias")}
    same(average(base, sources, weights=weights), expected | {"steps": base["steps"]})


@given(seed=seeds, q=st.integers(1, 5))
def test_task_arithmetic_at_scale_one_is_the_average(seed, q):
    base, sources, weights = models(seed, q=q)
    merged = task_arithmetic(base, sources, weights=weights)
    same(merged, average(base, sources, weights=weights))


@pytest.mark.parametrize("method", plain)
@given(seed=seeds)
def test_one_source_kept_whole_is_returned(method, seed):
    base, sources, _ = models(seed, q=1)
    whole = {"density": 1.0} if method is ties else {}
    same(method(base, sources, **whole), sources[0])


@given(seed=seeds)
def test_nothing_kept_is_the_base(seed):
    base, sources, weights = models(seed, q=3)
    for merged in (
        ties(base, sources, weights=weights, density=0),
        task_arithmetic(base, sources, weights=weights, scale=0),
    ):
        assert all(torch.equal(merged[key], base[key]) for key in base)


@pytest.mark.parametrize("method", [task_arithmetic, ties])
@given(seed=seeds, power=st.integers(-3, 3))
def test_scale_and_longer_task_vectors_move_as_far(method, seed, power):
    base, sources, _ = models(seed, q=3)
    scale = 2.0**power
    longer = [
        {k: base[k] + scale * (s[k] - base[k]) for k in ("weight", "bias")}
        | {"steps": s["steps"]}
        for s in sources
    ]
    # The longer vectors reach 8 times as far, with as many more units of rounding.
    same(method(base, longer), method(base, sources, scale=scale), roundings=256)


@pytest.mark.parametrize("method", plain)
@given(seed=seeds, order=st.permutations(range(4)))
def test_the_sources_have_no_order(method, seed, order):
    base, sources, weights = models(seed, q=4)
    permuted = method(
        base, [sources[i] for i in order], weights=[weights[i] for i in order]
    )
    same(permuted, method(base, sources, weights=weights))


@pytest.mark.parametrize("method", plain)
def test_nothing_passed_in_is_changed_or_shared(method):
    base, sources, _ = models(0, q=2)
    before = [{k: v.clone() for k, v in state.items()} for state in (base, *sources)]
    merged = method(base, sources)
    for value in merged.values():
        value.zero_()
    for state, copy in zip((base, *sources), before, strict=True):
        assert all(torch.equal(state[key], copy[key]) for key in copy)


def test_masses_that_cancel_elect_no_sign():
    base = {"weight": torch.zeros(2)}
    sources = [
        {"weight": torch.tensor([1.0, 2.0])},
        {"weight": torch.tensor([-1.0, 1.0])},
    ]
    merged = ties(base, sources, density=1)
    assert merged["weight"].tolist() == [0.0, 1.5]


def test_a_source_of_weight_zero_does_not_count():
    base, sources, _ = models(0, q=3)
    for method in plain:
        same(method(base, sources, weights=[0.5, 0.5, 0]), method(base, sources[:2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_means_are_formed_in_float64_and_rounded_once(dtype):
    generator = torch.Generator().manual_seed(0)
    sources = [{"w": torch.randn(50, generator=generator).to(dtype)} for _ in range(7)]
    mean = torch.stack([source["w"].double() for source in sources]).mean(0)
    assert torch.equal(average(sources[0], sources)["w"], mean.to(dtype))


def test_modules_are_merged_as_their_states():
    torch.manual_seed(0)
    base, *sources = (nn.Linear(3, 2) for _ in range(3))
    ours = merge(base, sources, method="ties", density=0.5)
    states = [source.state_dict() for source in sources]
    same(ours.state, ties(base.state_dict(), states, density=0.5))
    assert (ours.method, dict(ours.options)) == ("ties", {"density": 0.5})


def dare_with_seed(seed, *, density):
    base, sources, _ = models(0, q=1)
    generator = torch.Generator().manual_seed(seed)
    merged = dare(base, sources, generator=generator, density=density)
    return base, sources[0], merged


def test_dare_keeps_or_drops_each_entry_and_rescales():
    base, source, merged = dare_with_seed(0, density=0.5)
    steps = (merged["weight"] - base["weight"]) / (source["weight"] - base["weight"])
    kept = steps.abs() > 0.5
    assert 0 < kept.sum() < kept.numel()
    assert_close(steps, torch.where(kept, 2.0, 0.0).double(), rtol=0, atol=1e3 * EPS)


def test_dare_repeats_by_its_generator_and_keeps_all_at_density_one():
    first, again = (dare_with_seed(3, density=0.5)[2] for _ in range(2))
    assert torch.equal(first["weight"], again["weight"])
    _, source, whole = dare_with_seed(3, density=1.0)
    same(whole, source)


def test_dare_with_a_seed_for_a_generator():
    base, sources, _ = models(0, q=1)
    with pytest.raises(TypeError, match=r"generator must be .*Generator, got int"):
        dare(base, sources, generator=0)


def test_dare_without_entries_to_keep():
    with pytest.raises(ValueError, match=r"density must be a fraction in \(0, 1\]"):
        dare_with_seed(0, density=0.0)


@pytest.mark.parametrize(
    ("method", "options", "complaint"),
    [
        ("tie", {}, "'tie' is not one of: .*average, .*m_ties"),
        ("ties", {"density": 20}, "density must be a fraction"),
        ("ties", {"combine": "mean"}, "combine must be"),
        ("ties", {"scale": math.nan}, "scale must be finite"),
        ("average", {"weights": [0.5, 0.6]}, "weights must sum to 1"),
        ("m_ties", {}, "data must be given"),
        ("m_ties", {"data": torch.ones(1)}, "model must give the architecture"),
    ],
)
def test_a_bad_call_is_named(method, options, complaint):
    base, sources, _ = models(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        merge(base, sources, method=method, **options)


def test_an_option_the_method_does_not_have():
    base, sources, _ = models(0, q=2)
    with pytest.raises(TypeError, match="density"):
        merge(base, sources, method="average", density=0.2)
