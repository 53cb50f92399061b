import pytest

from mloss.merging.depth import relative_depths


@pytest.mark.parametrize(
    "name",
    [
        "vision_model.encoder.layers.{}.mlp.fc1.weight",
        "bert.encoder.layer.{}.attention.self.query.bias",
        "model.layers.{}.mlp.experts.0.up_proj.weight",
        "visual.transformer.resblocks.{}.attn.in_proj_weight",
        "blocks.{}.norm1.weight",
        "h.{}.mlp.c_fc.weight",
        "{}.weight",
    ],
)
def test_blocks_by_their_place_in_the_stack(name):
    keys = [name.format(block) for block in (0, 1, 2, 10, 11)]
    assert list(relative_depths(keys).values()) == [0, 0.25, 0.5, 0.75, 1]


def test_what_is_in_no_block_is_first():
    outside = ["embeddings.weight", "norm.weight", "head.weight", "scale"]
    depths = relative_depths([*outside, "layers.0.w", "layers.1.w"])
    assert [depths[key] for key in outside] == [0, 0, 0, 0]


def test_each_tower_has_its_own_depth():
    keys = ["text.layers.0.w", "text.layers.1.w", "image.layers.0.w"]
    keys += ["image.layers.1.w", "image.layers.2.w"]
    assert list(relative_depths(keys).values()) == [0, 1, 0, 0.5, 1]


def test_a_stack_of_one_block_is_first():
    assert relative_depths(["head.3.weight"]) == {"head.3.weight": 0}


def test_no_keys():
    assert relative_depths([]) == {}
