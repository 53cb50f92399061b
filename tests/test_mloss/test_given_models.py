import copy
import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("transformers", reason="needs the extra `hub`")

from checkpoint_models import images, small_bert, small_clip, small_vit, tokens

from mloss import gap, merge, score
from mloss.checkpoints import open_checkpoint, save_checkpoint
from mloss.given_models import either_tower, opened, runnable

EPS = torch.finfo(torch.float32).eps


def tuned(model, *, seed, step=0.02):
    """A copy whose parameters are moved at random."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in moved.parameters():
        parameter.data += step * torch.randn(parameter.shape, generator=generator)
    return moved


@pytest.fixture
def family(tmp_path):
    """BERT and two sources, in memory and on disk, with batches for them."""
    base = small_bert()
    models = [base, tuned(base, seed=1), tuned(base, seed=2)]
    paths = [tmp_path / name for name in ("base", "one", "two")]
    for model, path in zip(models, paths, strict=True):
        model.save_pretrained(path)
    return models, paths, [{"input_ids": tokens(4, seed=3)}]


def test_paths_and_modules_give_one_score(family):
    (base, *sources), (start, *others), data = family
    from_memory = score(base, sources, data)
    from_disk = score(str(start), others, data)
    for ours, theirs in zip(from_disk.sites, from_memory.sites, strict=True):
        assert ours.layer_name == theirs.layer_name
        assert torch.equal(ours.node, theirs.node)


def test_a_merge_of_paths_is_a_path_that_has_the_same_gap(family, tmp_path):
    (base, *sources), (start, *others), data = family
    for method in ("average", "m_ties"):
        merged = merge(start, others, method=method, data=data)
        in_memory = merge(base, sources, method=method, data=data)
        out = save_checkpoint(merged.state, open_checkpoint(start), tmp_path / method)
        expected = gap(in_memory.state, sources, data, model=base)
        assert gap(out, others, data) == expected
        assert gap(merged.state, others, data) == expected
        assert expected.mean > 0


def test_names_on_disk_that_the_model_changes_come_back_in_a_merge(tmp_path):
    base = small_vit()
    base.save_pretrained(tmp_path / "base")
    tuned(base, seed=1).save_pretrained(tmp_path / "one")
    stored = set(open_checkpoint(tmp_path / "base"))
    assert stored != set(base.state_dict()), "this test is of changed names"
    paths = [tmp_path / "one"]
    for method in ("task_arithmetic", "m_ties"):
        data = {"pixel_values": images()}
        merged = merge(tmp_path / "base", paths, method=method, data=data)
        assert set(merged.state) == stored


def test_modules_and_paths_can_be_mixed(family):
    (base, one, two), (start, first, _), data = family
    found = score(base, [first, two.state_dict()], data)
    expected = score(start, [one, two], data)
    assert torch.equal(found.sites[0].node, expected.sites[0].node)


def test_clip_runs_on_images_or_texts_alone():
    model = small_clip()
    both = model(input_ids=tokens(), pixel_values=images())
    faced = either_tower(copy.deepcopy(model))
    with torch.no_grad():
        seen = faced(pixel_values=images())
        read = faced(input_ids=tokens())
        again = faced(input_ids=tokens(), pixel_values=images())
    for alone, beside in ((seen, both.image_embeds), (read, both.text_embeds)):
        # The whole model divides by the norm, a sum of 20 squares; the tower does not.
        normed = alone / alone.norm(dim=-1, keepdim=True)
        assert_close(normed, beside.detach(), rtol=20 * EPS, atol=0)
    assert torch.equal(again.logits_per_image, both.logits_per_image)


@pytest.mark.parametrize("data", [{"pixel_values": images()}, {"input_ids": tokens()}])
def test_whole_clips_are_scored_and_merged_with_one_kind_of_samples(tmp_path, data):
    base = small_clip()
    base.save_pretrained(tmp_path / "base")
    tuned(base, seed=1).save_pretrained(tmp_path / "one")
    (kind,) = data
    tower = {"pixel_values": "vision_model", "input_ids": "text_model"}[kind]
    found = score(tmp_path / "base", [tmp_path / "one"], data)
    assert len(found.sites) == 2
    assert all(site.layer_name.startswith(tower) for site in found.sites)
    merged = merge(tmp_path / "base", [tmp_path / "one"], method="m_ties", data=data)
    assert set(merged.state) == set(open_checkpoint(tmp_path / "base"))
    assert gap(merged.state, [tmp_path / "one"], data).mean > 0


def test_a_merge_is_no_base_for_an_adapter(family, tmp_path):
    _, (start, *_), data = family
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    save = {"base_model.model.encoder.layer.0.output.dense.lora_A.weight": 1}
    torch.save(
        {name: torch.ones(2, 48) for name in save}, adapter / "adapter_model.bin"
    )
    with pytest.raises(ValueError, match="is an adapter, and its base is not known"):
        gap(start, [adapter], data)


def test_what_is_in_memory_stays_as_it_is():
    base, source = nn.Linear(2, 2), nn.Linear(2, 2)
    start, others = opened(base, [source])
    assert start is base
    assert others[0] is source
    with pytest.raises(TypeError, match="expected a module or a state dict, got int"):
        score(base, [3], torch.ones(1, 2))
    with pytest.raises(TypeError, match="one model"):
        score("base", "source", torch.ones(1, 2))


def test_weights_without_a_class_need_a_model(family, tmp_path):
    (base, *sources), _, data = family
    torch.save(base.state_dict(), tmp_path / "base.pt")
    torch.save(sources[0].state_dict(), tmp_path / "one.pt")
    paths = tmp_path / "base.pt", [tmp_path / "one.pt"]
    with pytest.raises(ValueError, match=r"has no config\.json beside it"):
        runnable(*paths)
    found = score(*paths, data, model=base)
    expected = score(base, sources[:1], data)
    assert torch.equal(found.sites[0].node, expected.sites[0].node)


def test_sources_of_another_size_are_named(family, tmp_path):
    _, (start, *_), data = family
    small_bert(hidden_size=16).save_pretrained(tmp_path / "narrow")
    with pytest.raises(ValueError, match=r"narrow.*only models of one size"):
        score(start, [tmp_path / "narrow"], data)
