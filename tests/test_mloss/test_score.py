import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mloss import layer_mloss, node_mloss, score
from mloss.predict import Moments, predict

EPS = torch.finfo(torch.float64).eps


def network(dtype=torch.float64):
    return nn.Sequential(
        *(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    ).to(dtype)


def family(seed, *, q, shift=0.1, dtype=torch.float64):
    """A base network and q perturbed copies, with inputs [sample, token, feature]."""
    torch.manual_seed(seed)
    base, sources = network(dtype), []
    for _ in range(q):
        source = network(dtype)
        moved = {
            k: v + shift * torch.randn_like(v) for k, v in base.state_dict().items()
        }
        source.load_state_dict(moved)
        sources.append(source)
    return base, sources, torch.randn(10, 3, 4, dtype=dtype)


def by_hand(base, sources, carrier, data, weights):
    """Pre-activations of each site on the carrier's layer input, all at once."""
    with torch.no_grad():
        for position, name in ((0, "gelu"), (2, "relu")):
            x = carrier[:position](data)
            h = torch.stack([source[position](x) for source in sources])
            options = {"weights": weights}
            yield (
                base[position](x),
                h,
                node_mloss(h, name, **options),
                node_mloss(h, name, normalized=True, **options),
                layer_mloss(h, name, **options),
                layer_mloss(h, name, normalized=True, **options),
            )


@pytest.mark.parametrize("inputs", ["merge", "base"])
def test_every_mean_and_standard_error_by_hand(inputs):
    base, sources, data = family(0, q=3)
    weights = [0.5, 0.3, 0.2]
    ours = score(base, sources, data.split(4), weights=weights, inputs=inputs)
    carrier = base
    if inputs == "merge":
        carrier = network()
        states = [source.state_dict() for source in sources]
        carrier.load_state_dict(
            {
                key: sum(w * s[key] for w, s in zip(weights, states, strict=True))
                for key in states[0]
            }
        )
    assert ours.samples == 10
    assert [s.layer_name for s in ours.sites] == ["0", "2"]
    assert [s.activation_name for s in ours.sites] == ["gelu", "relu"]
    rows = by_hand(base, sources, carrier, data, weights)
    for site, (_, _, node, node_ratio, layer, layer_ratio) in zip(
        ours.sites, rows, strict=True
    ):
        # Rounding of f(h), below 8, and of the division by at least 1e-4.
        close = {"rtol": 0, "atol": 256 * EPS}
        divided = {"rtol": 0, "atol": 256 * EPS / 1e-4}
        per_sample = node.mean(1)
        assert_close(site.node, per_sample.mean(0), **close)
        assert_close(site.node_stderr, per_sample.std(0) / math.sqrt(10), **close)
        assert_close(site.node_normalized, node_ratio.mean((0, 1)), **divided)
        assert_close(site.layer, layer.mean().item(), **close)
        stderr = layer.mean(1).std().item() / math.sqrt(10)
        assert_close(site.layer_stderr, stderr, **close)
        assert_close(site.layer_normalized, layer_ratio.mean().item(), **divided)
        stderr = layer_ratio.mean(1).std().item() / math.sqrt(10)
        assert_close(site.layer_normalized_stderr, stderr, **divided)


def test_the_prediction_is_that_of_the_moments():
    base, sources, data = family(0, q=2)
    ours = score(base, sources, data.split(4), inputs="base")
    rows = by_hand(base, sources, base, data, None)
    for site, (x, h, *_) in zip(ours.sites, rows, strict=True):
        shift = (h - x).flatten(1, 2)
        known = Moments(
            base_square=x.square().mean((0, 1)),
            jensen_variance=((shift[0] - shift[1]) / 2).square().mean(0),
            shift_square=shift.square().mean((0, 1)),
            covariance=torch.einsum("isn,jsn->ij", shift, shift) / shift[0].numel(),
        )
        expected = predict(
            {"gelu": nn.GELU(), "relu": nn.ReLU()}[site.activation_name], known
        )
        # Moments agree to some roundings, which the formulas pass on in proportion.
        assert site.prediction_exact
        assert_close(site.prediction, expected.value, rtol=1e4 * EPS, atol=0)
        assert_close(site.paper_prediction, expected.printed, rtol=1e4 * EPS, atol=0)


def test_close_models_in_float32_are_scored_above_the_rounding_of_f():
    # At shifts of 1e-4 the loss of GELU is near 1e-8, less than float32's rounding of
    # f. Rounding h, by 1e-7 of its size, moves differences of h by some 1e-3 at most.
    base, sources, data = family(0, q=2, shift=1e-4)
    exact = score(base, sources, data).sites[0]
    single = [model.float() for model in (base, *sources)]
    ours = score(single[0], single[1:], data.float()).sites[0]
    assert exact.layer < 6e-8
    assert ours.layer == pytest.approx(exact.layer, rel=1e-3)


def test_the_nodes_of_a_convolution_are_its_channels():
    torch.manual_seed(0)
    base, *sources = (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU()).double() for _ in range(3)
    )
    data = torch.randn(4, 2, 6, 5, dtype=torch.float64)
    (site,) = score(base, sources, data).sites
    with torch.no_grad():
        h = torch.stack([source[0](data).movedim(1, -1) for source in sources])
    expected = node_mloss(h, "gelu").mean((0, 1, 2))
    assert_close(site.node, expected, rtol=0, atol=256 * EPS)


def test_one_source_and_sources_alike_have_no_loss():
    base, (source,), data = family(0, q=1)
    for sources in ([source], [source, source]):
        for site in score(base, sources, data).sites:
            assert (site.node == 0).all()
            assert site.layer == 0
            assert (site.prediction == 0).all()


def test_the_loss_is_zero_and_predicted_zero_where_nothing_moved():
    base, _, data = family(0, q=1)
    for site in score(base, [base, base], data).sites:
        assert (site.node == 0).all()
        assert (site.prediction == 0).all()
        assert (site.paper_prediction == 0).all()


def test_state_dicts_need_the_architecture():
    base, sources, data = family(0, q=2)
    states = [model.state_dict() for model in (base, *sources)]
    by_state = score(states[0], states[1:], data, model=base)
    by_module = score(base, sources, data)
    for first, second in zip(by_state.sites, by_module.sites, strict=True):
        assert torch.equal(first.node, second.node)
    with pytest.raises(ValueError, match="model must give"):
        score(states[0], states[1:], data)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"inputs": "average"}, "inputs must be 'merge' or 'base'"),
        ({"weights": [1.0]}, "weights must hold one number"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"until": 0.0}, "until must be a positive relative error"),
        ({"dtype": torch.int64}, "dtype must be of floating-point numbers"),
        ({"together": 0}, "together must be at least 1"),
        ({"model": nn.Linear(4, 2)}, "base is another architecture than model"),
        ({"data": []}, "data must hold"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources, data = family(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        score(base, sources, **{"data": data, **options})


def test_a_dtype_by_name_is_none():
    base, sources, data = family(0, q=2)
    with pytest.raises(TypeError, match=r"dtype must be a torch.dtype, got 'float32'"):
        score(base, sources, data, dtype="float32")


def test_the_parameters_of_the_nodes_are_named():
    base, sources, data = family(0, q=2)
    sites = score(base, sources, data).sites
    assert [site.parameters for site in sites] == [
        ("0.weight", "0.bias"),
        ("2.weight", "2.bias"),
    ]


def test_sources_from_a_generator():
    base, sources, data = family(0, q=2)
    ours, listed = score(base, iter(sources), data), score(base, sources, data)
    assert all(
        torch.equal(first.node, second.node)
        for first, second in zip(ours.sites, listed.sites, strict=True)
    )


def test_a_source_with_another_activation_is_named():
    base, sources, data = family(0, q=2)
    sources[1][1] = nn.ReLU()
    with pytest.raises(ValueError, match="source 1 is another architecture than base"):
        score(base, sources, data)


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    base, sources, data = family(0, q=3)
    on_cpu = score(base, sources, data)
    on_gpu = score(base.cuda(), [source.cuda() for source in sources], data)
    for ours, reference in zip(on_gpu.sites, on_cpu.sites, strict=True):
        assert_close(ours.node.cpu(), reference.node, rtol=0, atol=256 * EPS)
        assert_close(ours.prediction, reference.prediction, rtol=1e6 * EPS, atol=0)


@pytest.mark.gpu
def test_models_on_the_cpu_are_scored_on_the_gpu():
    base, sources, data = family(0, q=3)
    on_cpu, on_gpu = (
        score(base, sources, data),
        score(base, sources, data, device="cuda"),
    )
    for ours, reference in zip(on_gpu.sites, on_cpu.sites, strict=True):
        assert_close(ours.node, reference.node, rtol=0, atol=256 * EPS)
    assert {p.device.type for p in base.parameters()} == {"cpu"}


def test_the_precision_asked_for_is_computed_in():
    base, sources, data = family(0, q=2, dtype=torch.float32)
    wide = score(base, sources, data, dtype=torch.float64)
    doubles = [copy.deepcopy(model).double() for model in (base, *sources)]
    expected = score(doubles[0], doubles[1:], data.double())
    for ours, reference in zip(wide.sites, expected.sites, strict=True):
        # The average is rounded to the base's float32 in one of them.
        assert ours.layer == pytest.approx(reference.layer, rel=1e-5)
    assert {p.dtype for p in base.parameters()} == {torch.float32}


def test_half_precision_is_as_rough_as_its_rounding():
    base, sources, data = family(0, q=2, shift=0.5)
    exact = score(base, sources, data).sites[0]
    half = score(base, sources, data, dtype=torch.bfloat16).sites[0]
    # Inputs, weights and outputs are rounded by 2^-9; GELU's slope is below 1.13, and
    # the loss is a difference of two of its values.
    size = max(
        (data.abs() @ s[0].weight.abs().T + s[0].bias.abs()).max().item()
        for s in sources
    )
    bound = 2 * 1.13 * 4 * 2**-9 * size
    error = (half.node - exact.node).abs().max().item()
    assert EPS < error < bound
    assert bound < exact.node.max()


def test_quantiles_of_a_node_over_samples():
    base, sources, data = family(0, q=2)
    site = score(base, sources, data.split(3)).sites[0]
    carrier = network()
    states = [source.state_dict() for source in sources]
    carrier.load_state_dict({k: (states[0][k] + states[1][k]) / 2 for k in states[0]})
    _, _, node, *_ = next(by_hand(base, sources, carrier, data, None))
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    expected = node.mean(dim=1).quantile(levels, dim=0)
    # The samples are kept in float32.
    assert_close(site.node_quantiles, expected, rtol=1e-6, atol=0)


def test_samples_are_added_until_the_error_is_small_enough():
    base, sources, _ = family(0, q=2)
    data = torch.randn(4000, 3, 4, dtype=torch.float64)
    ours = score(base, sources, data.split(50), until=0.05)
    assert 50 <= ours.samples < 4000
    assert all(site.layer_stderr <= 0.05 * site.layer for site in ours.sites)
    fewer = score(base, sources, data[: ours.samples - 50])
    assert any(site.layer_stderr > 0.05 * site.layer for site in fewer.sites)


@pytest.mark.parametrize(("held", "cached"), [(50, 2**20), (2**24, 50), (200, 50)])
def test_a_sample_too_long_for_memory_is_taken_in_pieces(monkeypatch, held, cached):
    base, sources, data = family(0, q=2)
    whole = score(base, sources, data)
    monkeypatch.setattr("mloss.tally._VALUES", held)
    monkeypatch.setattr("mloss.tally._CACHED", cached)
    pieces = score(base, sources, data)
    for ours, reference in zip(pieces.sites, whole.sites, strict=True):
        assert_close(ours.node, reference.node, rtol=1e3 * EPS, atol=0)
        assert_close(ours.layer_stderr, reference.layer_stderr, rtol=1e3 * EPS, atol=0)
        assert_close(ours.prediction, reference.prediction, rtol=1e4 * EPS, atol=0)
