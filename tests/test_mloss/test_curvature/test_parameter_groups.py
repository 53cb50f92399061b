import pytest
from small_transformers import ARCHITECTURES, bert, llama, small, tokens

from mloss import find_sites
from mloss.curvature import parameter_groups


def groups_of(build, batch):
    model = small(build)
    return model, parameter_groups(model, find_sites(model, batch()))


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_every_parameter_is_in_one_group(build, batch):
    model, groups = groups_of(build, batch)
    keys = [key for group in groups for key in group.keys]
    assert sorted(keys) == sorted(model.state_dict())


def test_the_groups_of_a_bert():
    _, groups = groups_of(bert, tokens)
    assert [(group.block, group.role) for group in groups] == [
        ("embeddings", "linear"),
        ("embeddings", "norm"),
        *(
            (f"encoder.layer.{i}", role)
            for i in range(2)
            for role in ("attention", "norm", "activation", "linear")
        ),
        ("pooler", "activation"),
    ]
    by_place = {(group.block, group.role): group.keys for group in groups}
    assert by_place["encoder.layer.1", "activation"] == (
        "encoder.layer.1.intermediate.dense.weight",
        "encoder.layer.1.intermediate.dense.bias",
    )
    assert len(by_place["encoder.layer.1", "attention"]) == 8
    assert len(by_place["encoder.layer.1", "norm"]) == 4


def test_a_gated_pair_feeds_the_activation_together():
    _, groups = groups_of(llama, tokens)
    (gated,) = (g for g in groups if (g.block, g.role) == ("layers.1", "activation"))
    assert gated.keys == (
        "layers.1.mlp.gate_proj.weight",
        "layers.1.mlp.up_proj.weight",
    )


def test_the_groups_of_the_digits_encoder(digits):
    model = digits.encoder()
    groups = parameter_groups(model, find_sites(model, digits.unlabelled(16)))
    assert [(g.block, g.role) for g in groups[:4]] == [
        ("stem", "linear"),
        ("blocks.0", "norm"),
        ("blocks.0", "activation"),
        ("blocks.0", "linear"),
    ]
    assert (groups[-1].block, groups[-1].role) == ("norm", "norm")
