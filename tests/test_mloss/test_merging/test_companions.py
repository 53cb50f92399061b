import pytest
import torch
from small_transformers import ARCHITECTURES, near, small
from torch import nn

from mloss.inference import evaluating, forward
from mloss.lockstep import in_lockstep
from mloss.merging.from_samples.companions import companions
from mloss.recording import recorded_inputs


def layers_of(model, batch):
    order = []
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: order.append(name)
        )
        for name in linear
    ]
    with evaluating(model):
        forward(model, model.state_dict(), batch)
    for hook in hooks:
        hook.remove()
    return order


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_each_network_shows_its_own_hidden_states_beside_the_merge(build, batch):
    model = small(build)
    state = model.state_dict()
    states = near(state, q=2, step=0.1)
    inputs = [batch(), batch()]
    order = layers_of(model, inputs[0])
    seen = {}
    with evaluating(model):
        with companions(model, states, inputs, layers=order) as beside:

            def gate(name):
                return lambda _: seen.update({name: beside(name)})

            in_lockstep(model, state, inputs, before={n: gate(n) for n in order})
        for index, own in enumerate(states):
            for number, each in enumerate(inputs):
                with recorded_inputs(model, order) as alone:
                    forward(model, own, each)
                for name in order:
                    assert torch.equal(seen[name][index][number], alone[name])
    assert all(
        torch.equal(model.state_dict()[key], value) for key, value in state.items()
    )
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_networks_that_end_before_the_merge_are_told():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state, x = model.state_dict(), torch.ones(1, 2)
    with (
        torch.no_grad(),
        companions(model, [state], [x], layers=["0", "1"]) as beside,
    ):
        beside("0")
        with pytest.raises(
            ValueError, match="comes to '1' where the merge comes to '0'"
        ):
            beside("0")


def test_a_layer_that_runs_once_only_in_the_caller_s_plan():
    model = nn.Sequential(nn.Linear(2, 2))
    state, x = model.state_dict(), torch.ones(1, 2)
    with torch.no_grad(), companions(model, [state], [x], layers=["0"]) as beside:
        beside("0")
        with pytest.raises(ValueError, match="comes to 'the end' where"):
            beside("0")
