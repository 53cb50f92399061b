"""Each operation written out: torch's own values, and right second derivatives."""

import pytest
import torch
from central_differences import curvature
from torch import nn
from torch.func import functional_call, jvp
from torch.nn import functional

from mloss.curvature.elementary import WrittenOut

EPS = torch.finfo(torch.float64).eps
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def heads(*, keys=5, groups=2):
    return [normal(2, 4, 5, 3), normal(2, groups, keys, 3), normal(2, groups, keys, 3)]


def attention(**options):
    def function(query, key, value):
        return functional.scaled_dot_product_attention(query, key, value, **options)

    return function


def multi_head(**options):
    module = nn.MultiheadAttention(6, 2, batch_first=True).double().eval()

    def function(x, weight):
        state = {"in_proj_weight": weight}
        return functional_call(module, state, (x, x, x), options)[0]

    return function


SEEN = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0]]).bool()[:, None, None]
BLIND = torch.ones(5, 5).tril(-1).bool()
CASES = {
    "layer_norm": (
        lambda x, w, b: functional.layer_norm(x, (4, 3), w, b, 0.1),
        lambda: [normal(5, 4, 3), normal(4, 3), normal(4, 3)],
    ),
    "layer_norm, no gain": (
        lambda x: functional.layer_norm(x, (3,)),
        lambda: [normal(5, 4, 3)],
    ),
    "torch.layer_norm": (
        lambda x, w, b: torch.layer_norm(x, (3,), w, b, 1e-5),
        lambda: [normal(5, 3), normal(3), normal(3)],
    ),
    "rms_norm": (
        lambda x, w: functional.rms_norm(x, (3,), w, 0.1),
        lambda: [normal(5, 3), normal(3)],
    ),
    "rms_norm, no eps": (
        lambda x: functional.rms_norm(x, (3,)),
        lambda: [normal(5, 3)],
    ),
    "batch_norm": (
        lambda x, m, v, w, b: functional.batch_norm(x, m, v, w, b),
        lambda: [normal(5, 4, 3), normal(4), 1 + normal(4) ** 2, normal(4), normal(4)],
    ),
    "batch_norm, of the batch": (
        lambda x, w: functional.batch_norm(x, None, None, w, training=True),
        lambda: [normal(5, 4, 3), normal(4)],
    ),
    "instance_norm": (
        lambda x, w, b: functional.instance_norm(x, weight=w, bias=b),
        lambda: [normal(5, 4, 3), normal(4), normal(4)],
    ),
    "instance_norm, running": (
        lambda x, m, v: functional.instance_norm(x, m, v, use_input_stats=False),
        lambda: [normal(5, 4, 3), normal(4), 1 + normal(4) ** 2],
    ),
    "attention": (attention(scale=0.7), lambda: heads(groups=4)),
    "attention, causal": (attention(is_causal=True), lambda: heads(groups=4)),
    "attention, grouped": (attention(enable_gqa=True), heads),
    "attention, padded": (attention(attn_mask=SEEN), lambda: heads(groups=4)),
    "attention, blind": (attention(attn_mask=BLIND), lambda: heads(groups=4)),
    "attention, added": (
        attention(attn_mask=torch.linspace(-2, 2, 25).double().view(5, 5)),
        lambda: heads(groups=4),
    ),
    "multi-head": (multi_head(), lambda: [normal(2, 5, 6), normal(18, 6)]),
    "multi-head, no weights": (
        multi_head(need_weights=False),
        lambda: [normal(2, 5, 6), normal(18, 6)],
    ),
    "silu": (functional.silu, lambda: [normal(5, 3)]),
    "mish": (functional.mish, lambda: [normal(5, 3)]),
    "glu": (functional.glu, lambda: [normal(5, 4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_same_values_and_right_second_derivative(name):
    torch.manual_seed(0)
    operation, arguments = CASES[name]
    centre = dict(enumerate(arguments()))
    direction = {key: normal(*value.shape) / 4 for key, value in centre.items()}

    def function(inputs):
        return operation(*inputs.values())

    def slope(inputs):
        return jvp(function, (inputs,), (direction,))[1]

    with torch.no_grad():
        expected = function(centre)
        with WrittenOut():
            values = function(centre)
            found = jvp(slope, (centre,), (direction,))[1]
    # Sums of at most 15 products between a few other operations.
    assert (values - expected).abs().max() <= 64 * EPS * expected.abs().max()
    exact, error = curvature(function, centre, direction, step=2.0**-5)
    assert error <= 1e-4 * exact.norm(), f"too coarse to test: {error}"
    assert (found - exact).norm() <= error
