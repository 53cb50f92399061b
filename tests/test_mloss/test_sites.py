import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from mloss import find_sites


class Own(nn.Module):
    """A parameter-free module that applies one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Net(nn.Module):
    """Two linear layers with a given function between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 5)
        self.between = between

    def forward(self, x):
        return self.second(self.between(self.first(x)))


class Residual(nn.Module):
    """x + fc2(relu(fc1(x))), twice, with functional activations."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Linear(5, 7), nn.Linear(7, 5)]) for _ in range(2)
        )

    def forward(self, x):
        for first, second in self.blocks:
            x = x + second(functional.relu(first(x)))
        return x


def layers(model, shape=(3, 5)):
    return [(s.layer, s.activation_name) for s in find_sites(model, torch.ones(shape))]


def test_activation_modules_in_forward_order():
    model = nn.Sequential(
        *(nn.Linear(5, 4), nn.GELU(), nn.Dropout()),
        *(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(inplace=True)),
        *(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)),
    )
    assert layers(model) == [("0", "gelu"), ("6", "relu")]


def test_functions_in_a_residual_network():
    assert layers(Residual()) == [("blocks.0.0", "relu"), ("blocks.1.0", "relu")]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: functional.gelu(x, approximate="tanh"), "gelu_tanh"),
        (lambda x: functional.relu(x, inplace=True), "relu"),
        (lambda x: 2 * functional.relu(x, inplace=True), "relu"),
        (functional.relu_, "relu"),
        (torch.relu, "relu"),
        (torch.Tensor.relu_, "relu"),
        (torch.tanh, "tanh"),
        (torch.Tensor.tanh, "tanh"),
        (functional.silu, "silu"),
        (functional.mish, "mish"),
        (functional.softplus, "softplus"),
        (lambda x: functional.leaky_relu(x, 0.01), "leaky_relu"),
        (lambda x: functional.leaky_relu(x, 0.3), "leaky_relu"),
        (torch.sigmoid, "sigmoid"),
        (lambda x: functional.gelu(input=x), "gelu"),
        (lambda x: functional.gelu(input=x, approximate="tanh"), "gelu_tanh"),
        (lambda x: torch.relu_(input=x), "relu"),
        (lambda x: functional.leaky_relu(input=x, negative_slope=0.3), "leaky_relu"),
    ],
)
def test_functions_of_torch(function, name):
    assert layers(Net(function)) == [("first", name)]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Own(lambda x: x * torch.sigmoid(1.702 * x)), "quick_gelu"),
        (Own(lambda x: x * torch.tanh(functional.softplus(x))), "mish"),
        (Own(lambda x: x.relu_()), "relu"),
        (Own(torch.sin), "Own"),
        (nn.GELU("tanh"), "gelu_tanh"),
        (nn.Sequential(nn.SiLU(), nn.Dropout()), "silu"),
        (nn.ELU(), "elu"),
        (nn.ELU(0.5), "ELU"),
    ],
)
def test_modules_that_map_elementwise(module, name):
    assert layers(Net(module)) == [("first", name)]


@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        nn.Dropout(),
        nn.Softmax(dim=-1),
        nn.LayerNorm(7, elementwise_affine=False),
        Own(lambda x: 2 * x + 1),
        Own(lambda x: x.flip(-1).relu()),
        Own(lambda x: torch.cumsum(x, -1)),
        nn.PReLU(),
    ],
)
def test_what_is_no_elementwise_activation(module):
    with pytest.raises(ValueError, match=r"Net has no activation site.*nn\.Linear"):
        find_sites(Net(module), torch.ones(3, 5))


@pytest.mark.parametrize(
    "gate",
    [
        lambda x: x * torch.sigmoid(x),
        lambda x: torch.sigmoid(1.702 * x) * x,
        lambda x: torch.mul(input=x, other=torch.sigmoid(x)),
        lambda x: functional.relu(x) + torch.tanh(x),
    ],
)
def test_an_activation_written_out_is_not_mistaken_for_its_parts(gate):
    with pytest.raises(ValueError, match="no activation site"):
        find_sites(Net(gate), torch.ones(3, 5))


def test_a_gated_layer_has_its_gate_as_site():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up = nn.Linear(5, 7), nn.Linear(5, 7)

        def forward(self, x):
            return functional.silu(self.gate(x)) * self.up(x)

    assert layers(Gated()) == [("gate", "silu")]


def test_a_transformer_under_tokens_traces_past_its_fused_path():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), 2
    ).eval()
    expected = [("layers.0.linear1", "gelu"), ("layers.1.linear1", "gelu")]
    assert layers(model, shape=(2, 3, 8)) == expected


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d])
def test_a_convolution_with_its_batch_norm_apart(conv):
    plain = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 3), nn.BatchNorm1d(2))
    shape = (2, 3, 8) if conv is nn.Conv1d else (2, 3, 8, 8)
    assert layers(plain[:3], shape=shape) == [("0", "relu")]


def test_the_site_applies_what_the_network_applies_and_leaves_its_input_alone():
    model = nn.Sequential(nn.Linear(5, 4), nn.LeakyReLU(0.3, inplace=True))
    (site,) = find_sites(model, torch.ones(3, 5))
    h = torch.linspace(-2, 2, 5, dtype=torch.float64)
    before = h.clone()
    expected = torch.where(h > 0, h, 0.3 * h)
    assert_close(site.activation(h), expected, rtol=0, atol=0)
    assert torch.equal(h, before)


def test_the_site_of_a_network_in_training_does_not_drop():
    model = Net(nn.Sequential(nn.SiLU(), nn.Dropout())).train()
    (site,) = find_sites(model, torch.ones(3, 5))
    h = torch.ones(1000)
    assert torch.equal(site.activation(h), functional.silu(h))


class ByKeyword(nn.Module):
    """Calls its layers and its activation with keywords."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 5)
        self.bend = Own(lambda x: x * torch.sigmoid(1.702 * x))

    def forward(self, x):
        return self.second(input=self.bend(x=self.first(input=x)))


def test_submodules_called_by_keyword():
    assert layers(ByKeyword()) == [("first", "quick_gelu")]


@pytest.mark.parametrize(
    ("model", "example", "complaint"),
    [
        ({}, torch.ones(3, 5), "model must be an nn.Module, got dict"),
        (nn.Linear(5, 2), [1.0], "batch 0 of data must be a tensor or a mapping"),
    ],
)
def test_what_is_no_model_or_no_tensor(model, example, complaint):
    with pytest.raises(TypeError, match=complaint):
        find_sites(model, example)


def test_a_layer_that_runs_twice():
    block = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    with pytest.raises(ValueError, match=r"layer '0\.0' runs more than once"):
        find_sites(nn.Sequential(block, block), torch.ones(3, 5))


def hooks(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks, *module._forward_pre_hooks)
    ]


@pytest.mark.parametrize("width", [5, 6], ids=["runs", "fails"])
def test_the_model_is_left_as_it_was(width):
    model = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Dropout()).train()
    model[1].eval()
    if width == 5:
        find_sites(model, torch.ones(3, width))
    else:
        with pytest.raises(RuntimeError):
            find_sites(model, torch.ones(3, width))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not hooks(model)
