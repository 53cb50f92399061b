"""The readings of Algorithm 1, against loops that do what each of them says."""

import math

import pytest
import torch
from small_transformers import ARCHITECTURES, near, small
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from mloss import score
from mloss.merging import METHODS, average, keep_rates, m_ties, ties
from mloss.merging.methods.m_dare import m_dare
from mloss.merging.pruning.node_rates import NodeRates

EPS = torch.finfo(torch.float64).eps
GELU_TANH = nn.GELU(approximate="tanh")


def network():
    return nn.Sequential(
        *(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    ).double()


def family(seed=0, *, q=3):
    torch.manual_seed(seed)
    base = network()
    sources = near(base.state_dict(), q=q, step=0.4)
    return base, sources, torch.randn(12, 3, dtype=torch.float64)


def reference(base, sources, data, *, density, spread):
    """What the authors' program computes, with loops over layers, nodes and models.

    Squares of tanh-GELU discrepancies, on the base's inputs; weight rows by their
    ranks, biases and everything else trimmed per tensor; disjoint means.
    """
    start = base.state_dict()
    merged = ties(start, sources, density=density, combine="disjoint_mean")
    for position in (0, 2):
        with torch.no_grad():
            x = base[:position](data)
        h = [x @ s[f"{position}.weight"].T + s[f"{position}.bias"] for s in sources]
        mean = sum(h) / len(h)
        loss = (GELU_TANH(mean) - sum(map(GELU_TANH, h)) / len(h)).square().mean(0)
        order = loss.argsort().tolist()
        for place, node in enumerate(order):
            rate = density - spread * place / (len(order) - 1)
            row = start[f"{position}.weight"][node]
            pruned = []
            for source in sources:
                vector = source[f"{position}.weight"][node] - row
                count = math.floor(rate * len(vector) + 0.5)
                largest = vector.abs().argsort(descending=True, stable=True)[:count]
                pruned.append(torch.zeros_like(vector))
                pruned[-1][largest] = vector[largest]
            total = sum(pruned)
            agree = [p * (p.sign() == total.sign()) for p in pruned]
            count = sum((a != 0).double() for a in agree)
            merged[f"{position}.weight"][node] = row + sum(agree) / count.clamp(min=1)
    return merged


@pytest.mark.parametrize("seed", range(4))
def test_the_preset_does_what_the_authors_program_does(seed):
    base, sources, data = family(seed)
    rates = {"density": 0.6, "spread": 0.4}
    ours = m_ties(
        base, sources, model=base, data=data.split(5), preset="reference", **rates
    )
    expected = reference(base, sources, data, **rates)
    for key, value in expected.items():
        assert_close(ours[key], value, rtol=0, atol=32 * EPS)


@pytest.mark.parametrize(
    "option",
    [
        {"mean": "absolute"},
        {"inputs": "merge"},
        {"activation": "relu"},
        {"bias": True},
        {"combine": "weighted_sum"},
        {"layers": "0"},
    ],
    ids=lambda option: next(iter(option)),
)
def test_each_option_of_the_preset_matters(option):
    base, sources, data = family(3)
    options = {"model": base, "data": data, "density": 0.7, "spread": 0.7}
    preset = m_ties(base, sources, preset="reference", **options)
    other = m_ties(base, sources, preset="reference", **options, **option)
    assert any(not torch.equal(preset[key], other[key]) for key in preset)


def test_elsewhere_the_budget_is_that_of_the_tensor_or_of_the_model():
    base, sources, data = family()
    for trimming in ("tensor", "model"):
        plain = ties(base, sources, density=0.4, trimming=trimming)
        ours = m_ties(
            base,
            sources,
            model=base,
            data=data,
            density=0.4,
            combine="disjoint_mean",
            trimming=trimming,
        )
        assert torch.equal(ours["4.weight"], plain["4.weight"])


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_keep_rates_are_ranks_of_the_score_on_the_base(build, batch):
    """The score of another module, on the same inputs, ranks the nodes the same."""
    model = small(build)
    inputs = [batch(), batch()]
    sources = near(model.state_dict(), q=2, step=0.3)
    scored = score(model, sources, inputs, inputs="base")
    lazy = METHODS["m_ties"].lazily(
        model, sources, model=model, data=inputs, inputs="base", density=0.6, spread=0.5
    )
    for site in scored.sites:
        expected = keep_rates(site.node, density=0.6, spread=0.5)
        assert torch.equal(lazy.rates[site.layer_name], expected)


def test_one_forward_pass_of_the_data():
    base, sources, data = family()
    calls = []
    handle = base[0].register_forward_hook(lambda *_: calls.append(1))
    m_ties(base, sources, model=base, data=data.split(4))
    handle.remove()
    # Three batches, and the one sample that shows where the sites are.
    assert len(calls) == 3 + 1


def test_few_tokens_estimate_the_same_scores():
    """Over many samples the mean over drawn tokens is the mean over all of them."""
    base, sources, _ = family()
    torch.manual_seed(1)
    data = torch.randn(4000, 10, 3, dtype=torch.float64)
    seen = {}
    for tokens in (None, 3):
        lazy = METHODS["m_ties"].lazily(
            base, sources, model=base, data=data, tokens=tokens, layers="0"
        )
        seen[tokens] = lazy.rates["0"]
    assert torch.equal(seen[None], seen[3])


def test_padding_is_never_drawn():
    model = small(ARCHITECTURES[2].values[0])
    batch = ARCHITECTURES[2].values[1]((5, 2, 1))
    sources = near(model.state_dict(), q=2, step=0.3)
    found = []
    for filler in (1, 2):
        ids = batch["input_ids"].where(batch["attention_mask"].bool(), filler)
        data = batch | {"input_ids": ids}
        lazy = METHODS["m_ties"].lazily(
            model, sources, model=model, data=data, tokens=2, inputs="base"
        )
        found.append(lazy.rates)
    for layer, rates in found[0].items():
        assert torch.equal(rates, found[1][layer])


def deep(blocks):
    layers = [nn.Linear(3, 3) for _ in range(blocks)]
    return nn.Sequential(*(m for one in layers for m in (one, nn.GELU()))).double()


@pytest.mark.parametrize(
    ("layers", "positions"),
    [("all", range(12)), ("few", [0, 8, 9, 10]), ("3, 5", [3, 5])],
)
def test_layers_are_chosen(layers, positions):
    torch.manual_seed(0)
    model = deep(12)
    sources = near(model.state_dict(), q=2, step=0.2)
    lazy = METHODS["m_ties"].lazily(
        model, sources, model=model, data=torch.randn(4, 3).double(), layers=layers
    )
    assert list(lazy.rates) == [str(2 * place) for place in positions]


def test_auto_takes_the_third_with_the_highest_mloss():
    torch.manual_seed(0)
    model = deep(6)
    sources = near(model.state_dict(), q=2, step=0.2)
    for source in sources:
        for layer in ("2", "8"):
            source[f"{layer}.weight"] += torch.randn(3, 3)
    data = torch.randn(40, 3, dtype=torch.float64)
    lazy = METHODS["m_ties"].lazily(
        model, sources, model=model, data=data, layers="auto"
    )
    assert list(lazy.rates) == ["2", "8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "mine"}, "preset"),
        ({"mean": "median"}, "mean"),
        ({"ranks": "dense"}, "ranks"),
        ({"inputs": "noise"}, "inputs"),
        ({"layers": "some"}, "layers"),
        ({"layers": "7"}, "position 7"),
        ({"tokens": 0}, "tokens"),
        ({"spread": 0.3, "density": 0.2}, "spread"),
    ],
)
def test_bad_options_are_named(options, message):
    base, sources, data = family()
    with pytest.raises(ValueError, match=message):
        m_ties(base, sources, model=base, data=data, **options)


def test_m_dare_keeps_by_rank_and_leaves_the_mean():
    """With equal sources the mean over draws is the source, node by node."""
    base, sources, data = family(q=1)
    options = {"model": base, "data": data, "density": 0.6, "spread": 0.4}
    draws = [
        m_dare(base, sources, generator=torch.Generator().manual_seed(seed), **options)[
            "0.weight"
        ]
        for seed in range(400)
    ]
    step = torch.stack(draws) - base.state_dict()["0.weight"]
    vector = sources[0]["0.weight"] - base.state_dict()["0.weight"]
    kept = (step != 0).double().mean((0, 2))
    rates = METHODS["m_ties"].lazily(base, sources, **options).rates["0"]
    error = (rates * (1 - rates) / (400 * 3)).sqrt()
    assert ((kept - rates).abs() < 5 * error).all()
    spread = step.std(0) / 20
    assert ((step.mean(0) - vector).abs() < 5 * spread).all()


def test_m_dare_refuses_nodes_that_keep_nothing():
    base, sources, data = family()
    chance = torch.Generator()
    with pytest.raises(ValueError, match="density must be above spread"):
        m_dare(
            base,
            sources,
            model=base,
            data=data,
            generator=chance,
            density=0.2,
            spread=0.2,
        )


def test_node_rates_survive_a_file(tmp_path):
    rates = NodeRates(
        {"a": ("a.weight", "a.bias"), "b.c": ("b.c.weight",)},
        {"a": torch.rand(4).double(), "b.c": torch.rand(2).double()},
    )
    rates.save(tmp_path / "rates.safetensors")
    again = NodeRates.load(tmp_path / "rates.safetensors")
    assert again.layers == rates.layers
    assert all(torch.equal(again.rates[k], v) for k, v in rates.rates.items())
    assert again.layer_of["a.bias"] == "a"


@pytest.mark.parametrize(
    ("layers", "rates", "message"),
    [
        ({"a": ("a.weight",)}, {}, "'a' must have both"),
        ({"a": ("a.weight",)}, {"a": torch.tensor([0.5, 1.5])}, "fractions"),
        ({"a": ("a.weight",)}, {"a": torch.tensor([math.nan])}, "fractions"),
    ],
)
def test_node_rates_are_checked(layers, rates, message):
    with pytest.raises(ValueError, match=message):
        NodeRates(layers, rates)


def test_what_is_no_map_of_rates_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no keep rates"):
        NodeRates.load(tmp_path / "other.safetensors")


def test_rows_are_merged_some_at_a_time(monkeypatch):
    base, sources, data = family()
    options = {"model": base, "data": data, "density": 0.7, "spread": 0.5}
    at_once = m_ties(base, sources, **options)
    monkeypatch.setattr("mloss.merging.pruning.row_wise._AT_ONCE", 8)
    for key, value in m_ties(base, sources, **options).items():
        assert torch.equal(value, at_once[key])


def normalised():
    layers = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)
    return nn.Sequential(*layers).double().eval()


def test_a_batch_norm_between_a_linear_layer_and_its_activation():
    """What a node is includes its norm, in M-TIES and in the score."""
    torch.manual_seed(0)
    base, data = normalised(), torch.randn(9, 3, dtype=torch.float64)
    sources = []
    for _ in range(2):
        state = {key: value.clone() for key, value in base.state_dict().items()}
        for value in state.values():
            if value.is_floating_point():
                value += 0.3 * torch.rand_like(value)
        sources.append(state)
    half = average(base, sources)

    def at_the_node(state):
        return functional_call(
            base[:2], {k: state[k] for k in base[:2].state_dict()}, data
        )

    h = [at_the_node(state) for state in sources]
    ensembled = (h[0].relu() + h[1].relu()) / 2
    loss = (((h[0] + h[1]) / 2).relu() - ensembled).abs().mean(0)
    rates = METHODS["m_ties"].lazily(base, sources, model=base, data=data).rates["0"]
    assert torch.equal(rates, keep_rates(loss.detach(), density=0.2, spread=0.1))
    (site,) = score(base, sources, data, inputs="base").sites
    expected = (at_the_node(half).relu() - ensembled).abs().mean(0).detach()
    assert_close(site.node, expected, rtol=1e-12, atol=1e-15)


def test_auto_looks_at_eight_samples_whatever_the_batches():
    torch.manual_seed(0)
    model = deep(6)
    sources = near(model.state_dict(), q=2, step=0.3)
    data = torch.randn(20, 3, dtype=torch.float64)
    chosen = [
        list(
            METHODS["m_ties"]
            .lazily(model, sources, model=model, data=given, layers="auto")
            .rates
        )
        for given in (data, data.split(1), data[:8])
    ]
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize(
    "metadata", [{}, {"parameters": "{"}, {"parameters": '{"a": 3}'}]
)
def test_files_that_hold_no_rates(tmp_path, metadata):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "r.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="no keep rates"):
        NodeRates.load(tmp_path / "r.safetensors")
    (tmp_path / "r.safetensors").write_text("not at all")
    with pytest.raises(ValueError, match="no keep rates"):
        NodeRates.load(tmp_path / "r.safetensors")


def test_a_key_belongs_to_one_layer():
    half = torch.tensor([0.5])
    with pytest.raises(ValueError, match="'w' must belong to one layer"):
        NodeRates({"a": ("w",), "b": ("w",)}, {"a": half, "b": half})
