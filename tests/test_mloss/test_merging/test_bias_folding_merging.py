import pytest
import torch
from small_transformers import bert, llama, near, small, tokens
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from mloss.data_free import Assumed
from mloss.density import normal_points
from mloss.inference import evaluating, forward
from mloss.merging import METHODS, average, ties
from mloss.merging.from_samples.mean_discrepancy import assumed_discrepancy
from mloss.merging.methods.bias_folding import bias_folding
from mloss.merging.methods.bias_folding_data_free import bias_folding_data_free

EPS = torch.finfo(torch.float64).eps


def mlp(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), activation, nn.Linear(7, 3)).double()


def fine_tunes(model, *, q=3, only="", step=0.3):
    """Sources near a model, whose other tensors are the model's own."""
    torch.manual_seed(1)
    state = model.state_dict()
    return [
        {key: value if key.startswith(only) else state[key] for key, value in n.items()}
        for n in near(state, q=q, step=step)
    ]


def outputs(model, state, x):
    with evaluating(model):
        return forward(model, state, x)


WEIGHTS = [0.5, 0.3, 0.2]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Tanh()])
def test_what_only_bends_is_right_on_average(activation):
    model = mlp(activation)
    sources = fine_tunes(model, only="0.")
    x = torch.randn(50, 4, dtype=torch.float64)
    base = model.state_dict()
    merged = bias_folding(base, sources, model=model, data=x, weights=WEIGHTS)
    each = torch.stack([outputs(model, source, x) for source in sources])
    ensemble = torch.einsum(
        "q,q...->...", torch.tensor(WEIGHTS, dtype=torch.float64), each
    )
    plain = average(base, sources, weights=WEIGHTS)
    left, before = (
        (outputs(model, state, x) - ensemble).mean(0).norm()
        for state in (merged, plain)
    )
    assert left < 1e3 * EPS < 1e-3 < before
    moved = [key for key in plain if not torch.equal(plain[key], merged[key])]
    assert moved == ["2.bias"]


def test_a_convex_activation_loses_so_biases_behind_positive_weights_rise():
    model = mlp(nn.ReLU())
    with torch.no_grad():
        model[2].weight.abs_()
    sources = fine_tunes(model, only="0.")
    x = torch.randn(50, 4, dtype=torch.float64)
    merged = bias_folding(model.state_dict(), sources, model=model, data=x)
    assert (
        merged["2.bias"] < average(model.state_dict(), sources)["2.bias"]
    ).sum() == 0
    assert (merged["2.bias"] > average(model.state_dict(), sources)["2.bias"]).any()


def test_later_blocks_are_measured_behind_the_folded_ones():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(4, 6),
        nn.GELU(),
        nn.Linear(6, 4),
        nn.GELU(),
        nn.Linear(4, 5),
        nn.GELU(),
        nn.Linear(5, 2),
    ).double()
    sources = fine_tunes(model)
    x = torch.randn(20, 4, dtype=torch.float64)
    by_hand = average(model.state_dict(), sources)
    entering = x
    for first, second in (("0", "2"), ("2", "4"), ("4", "6")):
        h = torch.stack(
            [
                functional.linear(entering, s[f"{first}.weight"], s[f"{first}.bias"])
                for s in sources
            ]
        )
        lost = functional.gelu(h.mean(0)) - functional.gelu(h).mean(0)
        by_hand[f"{second}.bias"] -= by_hand[f"{second}.weight"] @ lost.mean(0)
        own = functional.linear(
            entering, by_hand[f"{first}.weight"], by_hand[f"{first}.bias"]
        )
        entering = functional.gelu(own)
    merged = bias_folding(model.state_dict(), sources, model=model, data=[x[:7], x[7:]])
    for key, value in by_hand.items():
        assert_close(merged[key], value, rtol=0, atol=1e3 * EPS)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(4, 6), nn.Linear(4, 6)
        self.down = nn.Linear(6, 3)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def test_a_gated_pair_is_right_on_average_too():
    torch.manual_seed(3)
    model = Gated().double()
    state = model.state_dict()
    sources = fine_tunes(model)
    sources = [s | {k: state[k] for k in ("down.weight", "down.bias")} for s in sources]
    x = torch.randn(50, 4, dtype=torch.float64)
    merged = bias_folding(state, sources, model=model, data=x)
    ensemble = torch.stack([outputs(model, source, x) for source in sources]).mean(0)
    assert (outputs(model, merged, x) - ensemble).mean(0).norm() < 1e3 * EPS


def test_padding_does_not_count():
    model = small(bert)
    sources = near(model.state_dict(), q=2, step=0.1)
    batch = tokens()
    alone = [
        {name: value[i : i + 1, :n] for name, value in batch.items()}
        for i, n in enumerate(batch["attention_mask"].sum(dim=1))
    ]
    base = model.state_dict()
    padded = bias_folding(base, sources, model=model, data=batch)
    apart = bias_folding(base, sources, model=model, data=alone)
    # Attention's sums of up to 5 terms in another order, through two blocks.
    for key, value in padded.items():
        assert_close(apart[key], value, rtol=0, atol=1e3 * EPS)
    assert any((padded[k] - v).norm() > 1e-6 for k, v in average(base, sources).items())


@pytest.mark.parametrize("method", ["bias_folding", "bias_folding_data_free"])
def test_one_source_is_returned(method):
    model = small(bert)
    (source,) = near(model.state_dict(), q=1, step=0.1)
    data = {"data": tokens()} if METHODS[method].needs >= {"data"} else {}
    lazily = METHODS[method].lazily
    merged = dict(lazily(model.state_dict(), [source], model=model, **data))
    for key, value in source.items():
        assert_close(merged[key], value, rtol=0, atol=100 * EPS)


def test_it_corrects_any_other_merge():
    model = mlp(nn.GELU())
    sources = fine_tunes(model)
    x = torch.randn(50, 4, dtype=torch.float64)
    base = model.state_dict()
    options = {"density": 0.5}
    merged = bias_folding(
        base, sources, model=model, data=x, of="ties", of_options=options
    )
    plain = ties(base, sources, **options)
    assert [k for k in plain if not torch.equal(plain[k], merged[k])] == ["2.bias"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"of": "averages"}, "of='averages' is not one of"),
        ({"of": "regmean"}, "of='regmean' needs task_data"),
    ],
)
def test_a_merge_that_cannot_be_had(options, complaint):
    model = mlp(nn.GELU())
    x = torch.ones(2, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=complaint):
        bias_folding(
            model.state_dict(), fine_tunes(model), model=model, data=x, **options
        )


def test_layers_without_biases_are_refused():
    model = small(llama)
    sources = near(model.state_dict(), q=2, step=0.1)
    with pytest.raises(
        ValueError, match=r"'layers\.0\.mlp\.down_proj', which .* no bias"
    ):
        bias_folding(model.state_dict(), sources, model=model, data=tokens())


def test_a_network_whose_activations_enter_no_linear_layer():
    model = nn.Sequential(nn.Linear(4, 7), nn.ReLU()).double()
    x = torch.ones(2, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="no bias to fold into"):
        bias_folding(model.state_dict(), fine_tunes(model), model=model, data=x)


def assumed(mean, variance, jensen_variance):
    values = (mean, variance, jensen_variance)
    return Assumed(*(torch.tensor([v], dtype=torch.float64) for v in values))


def test_a_parabola_loses_its_jensen_variance():
    z = normal_points(*torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    lost = assumed_discrepancy(torch.square, assumed(0.3, 2.0, 0.7))
    # The points' own variance, a little less than 1, stands for that of z.
    assert_close(lost, -0.7 * z.square().mean(0), rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0])
def test_convex_activations_only_lose(mean):
    law = assumed(mean, 1.5, 0.4)
    for convex in (functional.relu, functional.softplus, torch.exp):
        assert assumed_discrepancy(convex, law) < 0


@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
def test_gelu_gains_where_the_node_s_mean_is_far_out(variance):
    turn = ((1 + variance) * (2 + variance)) ** 0.5
    near_turn = [
        assumed_discrepancy(functional.gelu, assumed(at * turn, variance, 1e-3)).item()
        for at in (0.9, 1.1, -0.9, -1.1)
    ]
    assert [lost > 0 for lost in near_turn] == [False, True, False, True]


def test_without_data_the_mean_is_foretold_for_standardised_inputs():
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.LayerNorm(64), nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 3)
    ).double()
    base = model.state_dict()
    sources = fine_tunes(model, only="1.")
    x = torch.randn(4000, 64, dtype=torch.float64)
    plain = average(base, sources)
    shift, foretold = (
        merged["3.bias"] - plain["3.bias"]
        for merged in (
            bias_folding(base, sources, model=model, data=x),
            bias_folding_data_free(base, sources, model=model, example=x[:1]),
        )
    )
    # The law is that of small errors, here a third of the weights: within a tenth.
    assert (foretold - shift).norm() < 0.1 * shift.norm()


def test_without_data_an_unknown_input_is_refused():
    model = mlp(nn.ReLU())
    x = torch.ones(1, 4, dtype=torch.float64)
    with pytest.raises(
        ValueError, match="no activation of Sequential has a known input"
    ):
        bias_folding_data_free(
            model.state_dict(), fine_tunes(model), model=model, example=x
        )
