import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mloss.activations import ACTIVATIONS, identify, resolve
from theory.activations import NAMED

EPS = torch.finfo(torch.float64).eps


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# Each activation from its textbook formula, by the standard library.
FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "hard_swish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "selu": lambda x: (
        1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))
    ),
    "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
    "gelu_tanh": lambda x: (
        x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "tanh": math.tanh,
    "sigmoid": sigmoid,
    "identity": lambda x: x,
}


def test_every_name_has_a_formula():
    assert set(ACTIVATIONS) == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
@given(x=st.floats(-6, 6))
def test_matches_its_formula(name, x):
    # About ten roundings a side of terms no larger than 1 + |x|.
    ours = resolve(name)(torch.tensor([x], dtype=torch.float64)).item()
    assert ours == pytest.approx(FORMULAS[name](x), abs=20 * EPS * (1 + abs(x)), rel=0)


def test_the_names_are_those_of_theory():
    assert set(ACTIVATIONS) == set(NAMED)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_name_means_what_it_means_in_theory(name):
    # Softplus in torch is a straight line above 20, 2e-9 away.
    x = np.linspace(-20, 20, 2001)
    ours = resolve(name)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, NAMED[name](x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_named_activation_is_identified_by_its_values(name):
    assert identify(lambda x: resolve(name)(x)) == name


@pytest.mark.parametrize("function", [nn.ELU(0.5), nn.LeakyReLU(0.02), torch.sin])
def test_an_unnamed_activation_is_not_identified(function):
    assert identify(function) is None


def test_a_callable_resolves_to_itself():
    assert resolve(torch.sin) is torch.sin


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'swish'.*relu.*gelu_tanh.*identity"):
        resolve("swish")


def test_neither_name_nor_callable_is_a_type_error():
    with pytest.raises(TypeError):
        resolve(3)
