import warnings

import pytest
import torch
from small_transformers import clip, llama, vit

from mloss import merge
from mloss.checkpoints import open_checkpoint
from mloss.merging.pruning.node_rates import NodeRates
from mloss.peers import mergekit

# What others warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("mergekit", reason="needs mergekit")

ROWS = {
    vit: ["encoder.layer.{}.intermediate.dense"],
    clip: ["vision_model.encoder.layers.{}.mlp.fc1"],
    llama: ["layers.{}.mlp.gate_proj", "layers.{}.mlp.up_proj"],
}


def saved(build, folder, q=3):
    """A base and q sources near it, as directories."""
    torch.manual_seed(0)
    base = build()
    places = [folder / str(index) for index in range(q + 1)]
    start = {key: value.clone() for key, value in base.state_dict().items()}
    for place in places:
        base.save_pretrained(place)
        with torch.no_grad():
            for name, value in base.named_parameters():
                value.copy_(start[name] + 0.1 * torch.randn_like(value))
    return places


def config(places, rates, folder, **parameters):
    lines = [
        "merge_method: m_ties",
        f"base_model: {places[0]}",
        "dtype: float32",
        "parameters:",
        f"  rates: {rates}",
        *(f"  {name}: {value}" for name, value in parameters.items()),
        "models:",
    ]
    for weight, place in enumerate(places[1:], start=1):
        lines += [f"  - model: {place}", f"    parameters: {{weight: {weight}}}"]
    path = folder / "merge.yml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def rates_of(build, places, *, end=".weight"):
    """Rates of the rows of each layer, in the names of the files."""
    names = open_checkpoint(places[0]).entries
    layers = [form.format(i) for form in ROWS[build] for i in range(2)]
    keys = {layer: (layer + end,) for layer in layers}
    assert all(key in names for (key,) in keys.values()) or end != ".weight"
    return NodeRates(keys, {layer: torch.linspace(0, 1, 24) for layer in layers})


@pytest.mark.parametrize("build", [clip, llama])
def test_a_merge_in_mergekit_is_ours(build, tmp_path):
    places = saved(build, tmp_path)
    rates = rates_of(build, places)
    rates.save(tmp_path / "rates.safetensors")
    written = config(
        places, tmp_path / "rates.safetensors", tmp_path, density=0.3, scale=0.7
    )
    assert mergekit.main([written, str(tmp_path / "out")]) == 0
    merged = open_checkpoint(tmp_path / "out").entries
    options = {"density": 0.3, "scale": 0.7, "combine": "weighted_sum"}
    ours = merge(
        places[0],
        places[1:],
        method="ties",
        rates=rates,
        weights=[1 / 6, 2 / 6, 3 / 6],
        **options,
    ).state
    assert merged.keys() == ours.keys()
    for name, entry in merged.items():
        assert torch.equal(entry.read(), ours[name]), name


def test_rates_make_a_difference(tmp_path):
    places = saved(clip, tmp_path)
    rates = rates_of(clip, places)
    merged = {
        name: merge(places[0], places[1:], method="ties", rates=given).state
        for name, given in [("with", rates), ("without", None)]
    }
    (key,) = rates.layers["vision_model.encoder.layers.0.mlp.fc1"]
    base = open_checkpoint(places[0]).entries[key].read()
    # The first node keeps nothing, the last all; at one rate for all both keep some.
    assert torch.equal(merged["with"][key][0], base[0])
    assert (merged["with"][key][-1] != base[-1]).all()
    assert not torch.equal(merged["without"][key][0], base[0])


def test_a_bias_that_shares_its_row_s_rate_is_merged_as_any_tensor(tmp_path):
    places = saved(clip, tmp_path)
    alone = rates_of(clip, places)
    together = NodeRates(
        {layer: (key, layer + ".bias") for layer, (key,) in alone.layers.items()},
        alone.rates,
    )
    outs = []
    for index, rates in enumerate([alone, together]):
        rates.save(tmp_path / f"{index}.safetensors")
        written = config(places, tmp_path / f"{index}.safetensors", tmp_path)
        outs.append(tmp_path / f"out{index}")
        assert mergekit.main([written, str(outs[-1])]) == 0
    first, second = (open_checkpoint(out).entries for out in outs)
    assert all(torch.equal(first[name].read(), second[name].read()) for name in first)


def test_rates_of_what_is_not_merged_are_refused(tmp_path, capsys):
    places = saved(clip, tmp_path)
    rates_of(clip, places, end=".kernel").save(tmp_path / "rates.safetensors")
    written = config(places, tmp_path / "rates.safetensors", tmp_path)
    assert mergekit.main([written, str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "vision_model.encoder.layers.0.mlp.fc1.kernel" in message


def test_layers_that_mergekit_leaves_out_are_not_left_out_in_silence(tmp_path, capsys):
    # It looks for a ViT's layers by names that their files do not have, and goes on.
    places = saved(vit, tmp_path)
    rates_of(vit, places).save(tmp_path / "rates.safetensors")
    written = config(places, tmp_path / "rates.safetensors", tmp_path)
    assert mergekit.main([written, str(tmp_path / "out")]) == 2
    assert "encoder.layer.0" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_without_rates_is_refused(tmp_path, capsys):
    places = saved(clip, tmp_path)
    written = config(places, places[0] / "model.safetensors", tmp_path)
    assert mergekit.main([written, str(tmp_path / "out")]) == 2
    assert "holds no keep rates" in capsys.readouterr().err.splitlines()[-1]


def test_mergekit_s_own_refusals_are_its_own(capsys):
    assert mergekit.main(["--no-such-option"]) == 2
    assert "No such option" in capsys.readouterr().err
