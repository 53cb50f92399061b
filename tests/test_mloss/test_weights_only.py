import copy

import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="needs the extra `hub`")

from checkpoint_models import images, small_bert, small_clip, small_llama, tokens

from mloss import score
from mloss.weights_only import blank, foretell


def tuned(model, *, seed):
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in moved.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return moved


@pytest.mark.parametrize(
    ("base", "data"),
    [
        (small_bert(), {"input_ids": tokens()}),
        (small_clip(), {"input_ids": tokens(), "pixel_values": images()}),
    ],
)
def test_it_is_the_data_free_prediction_of_a_score(base, data):
    sources = [tuned(base, seed=1), tuned(base, seed=2)]
    scored = {site.layer_name: site for site in score(base, sources, data).sites}
    found = foretell(base, sources)
    assert found
    for one in found:
        expected = scored[one.layer_name].data_free_prediction
        assert one.activation_name == scored[one.layer_name].activation_name
        assert (one.node is None) == (expected is None)
        if one.node is not None:
            assert torch.equal(one.node, expected)


def test_gated_pairs_are_listed_without_a_number():
    base = small_llama()
    found = foretell(base, [tuned(base, seed=1)])
    assert [one.node for one in found] == [None, None]


def test_an_unknown_network_needs_an_example():
    norm = nn.LayerNorm(3)
    base = nn.Sequential(norm, nn.Linear(3, 4), nn.ReLU())
    source = copy.deepcopy(base)
    with torch.no_grad():
        source[1].weight.add_(0.1)
    with pytest.raises(ValueError, match="what Sequential takes is not known"):
        foretell(base, [source, base])
    (found,) = foretell(base, [source, base], example=torch.zeros(1, 3))
    assert found.layer_name == "1"
    assert found.node.shape == (4,)
    assert (found.node > 0).all()


def test_a_blank_has_what_the_class_takes():
    assert set(blank(small_clip())) == {"pixel_values", "input_ids"}
    assert set(blank(small_bert())) == {"input_ids"}
