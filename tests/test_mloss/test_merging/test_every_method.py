"""What every merging method keeps to; a method that is new is found by itself."""

import inspect
import math
from functools import cache

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mloss.merging import METHODS

# Options with which a method has something to do here, in little time.
OPTIONS = {"adamerging": {"steps": 3}}

# Methods whose merge depends on the order of the sources, and why.
ORDERED = {"opcm": "takes from each source what the ones before have"}

# Options whose error names another, and why.
NAMED_AS = {("dare_ties", "trimmed_to"): "density"}  # it is the density of its TIES


class Network(nn.Module):
    """Two sites between linear layers, a norm, and an integer buffer."""

    def __init__(self, *, inputs, width):
        super().__init__()
        self.up = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.middle = nn.Linear(width, 6)
        self.head = nn.Linear(6, 3)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x):
        hidden = nn.functional.gelu(self.middle(self.norm(torch.relu(self.up(x)))))
        return self.head(hidden)


class Case:
    """A base, two sources at some distance from it, and what methods ask for."""

    def __init__(self, *, dtype=torch.float32, inputs=4, width=8):
        generator = torch.Generator().manual_seed(0)

        def drawn(shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.model = Network(inputs=inputs, width=width).to(dtype)
        shapes = {key: value.shape for key, value in self.model.state_dict().items()}
        shapes.pop("steps")
        start = {key: drawn(shape) / 2 for key, shape in shapes.items()}
        self.base, *self.sources = (
            {
                key: (start[key] + far * drawn(start[key].shape)).to(dtype)
                for key in start
            }
            | {"steps": torch.tensor(7)}
            for far in (0, 0.1, 0.1)
        )
        self.data = drawn((16, inputs)).to(dtype)
        self.task_data = [drawn((16, inputs)).to(dtype) for _ in self.sources]

    def lazily(self, name, *, sources=None, **options):
        """The method's merge, entry by entry as it is looked up."""
        method = METHODS[name]
        known = {
            "model": self.model,
            "data": self.data,
            "example": self.data,
            "task_data": self.task_data,
            "heads": [nn.Identity() for _ in self.sources],
            "generator": torch.Generator().manual_seed(1),
        }
        asked = inspect.signature(method.lazily).parameters
        given = {key: value for key, value in known.items() if key in asked}
        chosen = given | OPTIONS.get(name, {}) | options
        return method.lazily(self.base, sources or self.sources, **chosen)

    def merged(self, name, **options):
        return dict(self.lazily(name, **options))


@cache
def case(**settings):
    return Case(**settings)


every_method = pytest.mark.parametrize("name", METHODS)


def copied(states):
    return [{key: value.clone() for key, value in state.items()} for state in states]


def assert_equal(first, second):
    assert list(first) == list(second)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_entries_are_like_the_base(name, dtype):
    merged = case(dtype=dtype).merged(name)
    base = case(dtype=dtype).base
    assert list(merged) == list(base)
    for key, value in base.items():
        assert (merged[key].dtype, merged[key].shape) == (value.dtype, value.shape)
        assert torch.isfinite(merged[key]).all()
        assert not merged[key].requires_grad
    assert merged["steps"].item() == 7


@every_method
def test_nothing_given_is_changed_or_shared(name):
    own = Case()
    given = [own.base, *own.sources, own.model.state_dict()]
    before, random = copied(given), torch.random.get_rng_state()
    inputs = [batch.clone() for batch in (own.data, *own.task_data)]
    for value in own.merged(name).values():
        value.zero_()
    for state, copy in zip(given, before, strict=True):
        assert_equal(state, copy)
    for batch, copy in zip((own.data, *own.task_data), inputs, strict=True):
        assert torch.equal(batch, copy)
    assert own.model.training
    assert torch.equal(torch.random.get_rng_state(), random)


@every_method
def test_entries_are_the_same_alone_and_in_any_order(name):
    whole, lazy = case().merged(name), case().lazily(name)
    assert len(lazy) == len(whole)
    assert "steps" in lazy
    assert "stops" not in lazy
    for _ in range(2):
        backwards = {key: lazy[key] for key in reversed(whole)}
        assert_equal({key: backwards[key] for key in whole}, whole)


@every_method
def test_the_same_bytes_again_and_on_any_number_of_threads(name):
    # Wide enough for torch to share sums among threads: more than 2^15 values.
    wide = case(inputs=200, width=200)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        first, again = wide.merged(name), wide.merged(name)
        torch.set_num_threads(1)
        alone = wide.merged(name)
    finally:
        torch.set_num_threads(before)
    assert_equal(again, first)
    assert_equal(alone, first)


@every_method
def test_sources_equal_to_the_base_give_the_base(name):
    own = case(dtype=torch.float64)
    merged = own.merged(name, sources=copied([own.base, own.base]))
    # Rounding, which a regression on inputs to a layer may make larger.
    for key, value in own.base.items():
        assert_close(merged[key], value, rtol=0, atol=1e-9)


@every_method
def test_the_sources_have_no_order(name):
    own = case(dtype=torch.float64)
    if METHODS[name].draws:
        pytest.skip("random numbers go to the sources in their order")
    if name in ORDERED:
        pytest.skip(f"{name} {ORDERED[name]}")
    other = Case(dtype=torch.float64)
    other.sources, other.task_data = other.sources[::-1], other.task_data[::-1]
    forward = own.merged(name, weights=[0.3, 0.7])
    backward = other.merged(name, weights=[0.7, 0.3])
    # Rounding, which a regression on inputs to a layer may make larger.
    for key, value in forward.items():
        assert_close(backward[key], value, rtol=0, atol=1e-9)


@every_method
@pytest.mark.parametrize(
    "weights", [[0.5, 0.6], [1.5, -0.5], [math.nan, 1], [1.0], [0.2, 0.3, 0.5]]
)
def test_weights_that_are_none(name, weights):
    with pytest.raises(ValueError, match=r"^weights must"):
        case().merged(name, weights=weights)


@every_method
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(name, number):
    for option, default in METHODS[name].options.items():
        if isinstance(default, float):
            with pytest.raises(ValueError, match=NAMED_AS.get((name, option), option)):
                case().merged(name, **{option: number})


@every_method
def test_a_source_that_does_not_match_is_named(name):
    broken = copied(case().sources)
    del broken[1]["up.bias"]
    with pytest.raises(ValueError, match=r"source 1 has no 'up\.bias'"):
        case().merged(name, sources=broken)


@every_method
def test_its_source_is_cited_and_its_docstring_says_what_it_raises(name):
    method = METHODS[name]
    documented = inspect.getdoc(method.lazily)
    assert method.source
    assert documented
    assert "Raises" in documented
