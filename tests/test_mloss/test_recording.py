import pytest
import torch
from torch import nn

from mloss.recording import recorded_inputs, visited


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_what_enters_the_named_modules_in_the_last_pass():
    model, x = network(), torch.ones(2, 3)
    with recorded_inputs(model, ["0", "2"]) as seen:
        assert seen == {}
        model(torch.zeros(2, 3))
        model(x)
    assert torch.equal(seen["0"], x)
    assert torch.equal(seen["2"], model[:2](x))
    assert not seen["2"].requires_grad


def test_an_input_given_by_keyword():
    model, x = network(), torch.ones(2, 3)
    with recorded_inputs(model, ["0"]) as seen:
        model[0](input=x)
    assert torch.equal(seen["0"], x)


def test_a_visitor_sees_what_enters_and_leaves_in_each_run():
    model, x, seen = network(), torch.randn(2, 3), []
    with visited(model, {"2": lambda entered, left: seen.append((entered, left))}):
        first, second = model(x), model(2 * x)
    assert [left for _, left in seen] == [first, second]
    assert torch.equal(seen[1][0], model[:2](2 * x))
    assert not any(module._forward_hooks for module in model.modules())


def test_the_hooks_are_gone_after_an_error():
    model = network()
    with pytest.raises(RuntimeError), recorded_inputs(model, ["0", "2"]):
        model(torch.ones(2, 5))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_name_the_model_does_not_have():
    with (
        pytest.raises(KeyError, match=r"Sequential has no submodule named \['7'\]"),
        recorded_inputs(network(), ["0", "7"]),
    ):
        pass
