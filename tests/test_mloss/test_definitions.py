import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import config
from torch.testing import assert_close

from mloss import layer_mloss, node_mloss
from mloss.activations import ACTIVATIONS, resolve

EPS = torch.finfo(torch.float64).eps
names = st.sampled_from(sorted(ACTIVATIONS))
seeds = st.integers(0, 2**31)
model_counts = st.integers(1, 6)


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """No shape checks, which would answer before our own, as outside the tests."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


def pre_activations(seed, *, q, scale=1.0):
    """Random h [q, sample, token, node] and weights [q]."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(q, 3, 2, 5, generator=generator, dtype=torch.float64)
    raw = torch.rand(q, generator=generator, dtype=torch.float64)
    return scale * h, (raw / raw.sum()).tolist()


def close(ours, expected, *, size, roundings=40):
    """Agreement to the roundings of sums of a few terms no larger than `size`."""
    assert_close(ours, expected, rtol=0, atol=roundings * EPS * size)


def by_hand(h, activation, weights, eps):
    """Eqs. 4 and 7 and the merged output for one node, with Python floats."""

    def f(x):
        return activation(torch.tensor(x, dtype=torch.float64)).item()

    merged = f(sum(w * x for w, x in zip(weights, h, strict=True)))
    loss = abs(merged - sum(w * f(x) for w, x in zip(weights, h, strict=True)))
    return loss, loss / (abs(merged) + eps), merged


@given(name=names, seed=seeds, q=model_counts)
def test_every_definition_entry_by_entry(name, seed, q):
    h, weights = pre_activations(seed, q=q)
    h = h[:, :, 0]  # [q, sample, node]
    torch.set_default_dtype(torch.float64)
    try:
        expected = [
            [
                by_hand(h[:, s, n].tolist(), resolve(name), weights, 1e-2)
                for n in range(5)
            ]
            for s in range(3)
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    loss, normalized, merged = torch.tensor(expected, dtype=torch.float64).unbind(-1)
    options = {"weights": weights, "eps": 1e-2}
    norm, size = loss.square().sum(-1).sqrt(), merged.square().sum(-1).sqrt()
    close(node_mloss(h, name, **options), loss, size=5)
    close(node_mloss(h, name, normalized=True, **options), normalized, size=5 / 1e-2)
    close(layer_mloss(h, name, **options), norm, size=5)
    layer_normalized = layer_mloss(h, name, normalized=True, **options)
    close(layer_normalized, norm / (size + 1e-2), size=5 / 1e-2)


@given(name=names, seed=seeds, q=model_counts)
def test_layer_is_the_norm_of_the_nodes(name, seed, q):
    # Remark 2 (Eq. 5): one more square, sum of five and root.
    h, weights = pre_activations(seed, q=q)
    nodes = node_mloss(h, name, weights=weights)
    layer = layer_mloss(h, name, weights=weights)
    assert_close(layer, nodes.square().sum(-1).sqrt(), rtol=8 * EPS, atol=0)


@given(name=names, seed=seeds)
def test_one_model_has_no_loss(name, seed):
    h, _ = pre_activations(seed, q=1)
    assert (node_mloss(h, name) == 0).all()
    assert (layer_mloss(h, name, normalized=True) == 0).all()


@given(seed=seeds, q=model_counts)
def test_a_linear_network_has_no_loss(seed, q):
    h, weights = pre_activations(seed, q=q)
    close(
        node_mloss(h, "identity", weights=weights),
        torch.zeros(3, 2, 5).double(),
        size=5,
    )


@given(name=names, seed=seeds, q=model_counts, order=st.randoms(use_true_random=False))
def test_the_models_have_no_order(name, seed, q, order):
    h, weights = pre_activations(seed, q=q)
    shuffled = order.sample(range(q), q)
    permuted = node_mloss(h[shuffled], name, weights=[weights[i] for i in shuffled])
    close(permuted, node_mloss(h, name, weights=weights), size=5)


@given(seed=seeds, q=model_counts, power=st.integers(-20, 20))
def test_relu_is_positively_homogeneous(seed, q, power):
    # Powers of two scale without rounding.
    h, weights = pre_activations(seed, q=q)
    scaled = node_mloss(h * 2.0**power, "relu", weights=weights)
    assert torch.equal(scaled, node_mloss(h, "relu", weights=weights) * 2.0**power)


@given(seed=seeds, q=model_counts, slope=st.floats(0, 1))
def test_leaky_relu_is_relu_times_one_minus_the_slope(seed, q, slope):
    h, weights = pre_activations(seed, q=q)
    leaky = node_mloss(
        h, lambda x: torch.nn.functional.leaky_relu(x, slope), weights=weights
    )
    close(leaky, (1 - slope) * node_mloss(h, "relu", weights=weights), size=5)


@given(name=names, seed=seeds, q=model_counts)
def test_normalising_divides_by_the_merged_output(name, seed, q):
    h, weights = pre_activations(seed, q=q)
    mean = (h.new_tensor(weights).view(-1, 1, 1, 1) * h).sum(0)
    size = resolve(name)(mean).abs() + 1e-4
    normalized = node_mloss(h, name, weights=weights, normalized=True)
    close(normalized * size, node_mloss(h, name, weights=weights), size=10)


def test_a_model_of_weight_zero_does_not_count():
    h, _ = pre_activations(0, q=3)
    with_it = node_mloss(h, "gelu", weights=[0.5, 0.5, 0.0])
    assert torch.equal(with_it, node_mloss(h[:2], "gelu"))


def test_float32_stays_float32():
    h, _ = pre_activations(0, q=2)
    assert node_mloss(h.float(), "gelu").dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mloss", [node_mloss, layer_mloss])
def test_half_precision_is_computed_in_float32(mloss, dtype):
    h = pre_activations(0, q=2, scale=100.0)[0].to(dtype)
    # In float16 an eps of 1e-8 rounds to zero, and squares of h overflow.
    options = {"normalized": True, "eps": 1e-8}
    ours = mloss(1e2 * h, "relu", **options)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, mloss((1e2 * h).float(), "relu", **options))


@pytest.mark.parametrize("mloss", [node_mloss, layer_mloss])
def test_an_eps_that_rounds_to_zero(mloss):
    h = -torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"eps must be positive in torch\.float32"):
        mloss(h, "relu", normalized=True, eps=1e-60)


@pytest.mark.parametrize(
    ("activation", "h", "complaint"),
    [
        ("gelu", torch.full((2, 3), 3e38), "activation must be finite"),
        (torch.log, -torch.ones(2, 3), "activation must be finite"),
        (lambda x: x.sum(), torch.ones(2, 3), r"activation must map .*\(3,\) to one"),
        (lambda x: x.tolist(), torch.ones(2, 3), "activation must map .* got list"),
    ],
)
@pytest.mark.parametrize("mloss", [node_mloss, layer_mloss])
def test_what_is_no_activation_on_h(mloss, activation, h, complaint):
    with pytest.raises(ValueError, match=complaint):
        mloss(h, activation)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_norm_that_overflows(normalized):
    h = torch.tensor([[3e38, 3e38], [-3e38, -3e38]])
    with pytest.raises(ValueError, match="h is too large"):
        layer_mloss(h, torch.abs, normalized=normalized)


@pytest.mark.parametrize(
    ("h", "got"),
    [
        ([[1.0], [2.0]], "list"),
        (torch.ones(2, 3, dtype=torch.int64), r"torch\.int64"),
        (torch.ones(2, 3, dtype=torch.bool), r"torch\.bool"),
        (torch.ones(2, 3, dtype=torch.complex64), r"torch\.complex64"),
    ],
)
@pytest.mark.parametrize("mloss", [node_mloss, layer_mloss])
@pytest.mark.usefixtures("unchecked_shapes")
def test_h_that_is_no_floating_point_tensor(mloss, h, got):
    with pytest.raises(TypeError, match=f"h must be a floating.* tensor, got {got}"):
        mloss(h, "relu")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pre_activations_that_are_not_finite(bad):
    h, _ = pre_activations(0, q=2)
    h[1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="h must be finite"):
        node_mloss(h, "relu")


@pytest.mark.parametrize("eps", [0.0, -1e-4, math.nan])
@pytest.mark.parametrize("mloss", [node_mloss, layer_mloss])
def test_eps_must_be_positive(mloss, eps):
    h, _ = pre_activations(0, q=2)
    with pytest.raises(ValueError, match="eps must be positive"):
        mloss(h, "relu", normalized=True, eps=eps)


def test_weights_and_activation_are_checked():
    h, _ = pre_activations(0, q=2)
    with pytest.raises(ValueError, match="weights must sum to 1"):
        node_mloss(h, "relu", weights=[0.5, 0.4])
    with pytest.raises(ValueError, match="'swish'"):
        layer_mloss(h, "swish")


def test_h_without_a_node_axis():
    # A TypeError where shapes are checked as they are in the test run.
    with pytest.raises((ValueError, TypeError)):
        node_mloss(torch.zeros(2), "relu")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_cpu_and_gpu_agree(name):
    h, weights = pre_activations(0, q=4)
    on_gpu = node_mloss(h.cuda(), name, weights=weights).cpu()
    close(on_gpu, node_mloss(h, name, weights=weights), size=5)
