import json

import pytest
import torch
from checkpoint_models import small_bert, small_classifier, small_vit
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mloss.checkpoints import (
    as_source,
    check_compatible,
    check_finite,
    in_working_dtypes,
    open_checkpoint,
)


@pytest.fixture
def pair(tmp_path):
    """Directories of two models of one architecture."""
    for seed, name in enumerate(("base", "source")):
        small_bert(seed).save_pretrained(tmp_path / name)
    return tmp_path / "base", tmp_path / "source"


def changed(directory, change):
    state = load_file(directory / "model.safetensors")
    save_file(change(state), directory / "model.safetensors")


def compare(base, source):
    check_compatible(open_checkpoint(base), [open_checkpoint(source)])


def test_models_of_one_architecture_are_compatible(pair):
    compare(*pair)


def test_another_architecture_is_said(pair, tmp_path):
    small_vit().save_pretrained(tmp_path / "vit")
    with pytest.raises(
        ValueError, match=r"vit is another.*model_type 'vit', not 'bert'"
    ):
        compare(pair[0], tmp_path / "vit")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu', not 'gelu'"),
        ({"num_attention_heads": 2}, "num_attention_heads 2, not 4"),
    ],
)
def test_what_shapes_do_not_show_is_compared(pair, option, said):
    path = pair[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | option))
    with pytest.raises(ValueError, match=said):
        compare(*pair)


def test_missing_weights_are_listed(pair):
    changed(pair[1], lambda s: {k: v for k, v in s.items() if "layer.0" not in k})
    with pytest.raises(ValueError, match=r"source lacks ('.*', ){2}'.*' and 13 more"):
        compare(*pair)


def test_left_over_weights_are_listed(pair):
    changed(pair[1], lambda s: s | {"head": torch.ones(1)})
    with pytest.raises(ValueError, match=r"base lacks 'head', which .*source has"):
        compare(*pair)


def test_other_shapes_are_counted(pair, tmp_path):
    small_bert(vocab_size=98, intermediate_size=40).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"\[98, 32\] in .*other.*6 others differ"):
        compare(pair[0], tmp_path / "other")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_that_are_not_finite_are_placed(tmp_path, value, dtype):
    weight = torch.ones(5, 7).to(dtype)
    weight[3, 2] = weight[4, 6] = value
    state = {"a": torch.ones(3), "b": weight, "count": torch.tensor(3)}
    save_file(state, tmp_path / "w.safetensors")
    said = rf"'b' of .*w\.safetensors holds 2 values.*first at \[3, 2\] \({value}\)"
    with pytest.raises(ValueError, match=said):
        check_finite(open_checkpoint(tmp_path / "w.safetensors"))


def test_one_nan_is_found_wherever_it_is(tmp_path):
    for place in range(70):
        state = {"w": torch.linspace(-1, 1, 70)}
        state["w"][place] = float("nan")
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(ValueError, match=rf"1 values .* at \[{place}\]"):
            check_finite(open_checkpoint(tmp_path / "w.safetensors"))


def test_extreme_but_finite_values_pass(tmp_path):
    most = torch.finfo(torch.float32).max
    state = {
        "wide": torch.tensor([most, most, -most]),
        "scalar": torch.tensor(1.0),
        "empty": torch.empty(0, 3),
    }
    save_file(state, tmp_path / "w.safetensors")
    check_finite(open_checkpoint(tmp_path / "w.safetensors"))


def test_names_of_a_running_model_become_those_on_disk(tmp_path):
    small_vit(0).save_pretrained(tmp_path)
    source = small_vit(1)
    torch.save(source.state_dict(), tmp_path / "source.pt")
    base = open_checkpoint(tmp_path)
    renamed = as_source(base, open_checkpoint(tmp_path / "source.pt"))
    assert set(renamed) == set(base) != set(source.state_dict())
    check_compatible(base, [renamed])
    value = source.state_dict()["layers.1.mlp.fc1.weight"]
    assert torch.equal(renamed["encoder.layer.1.intermediate.dense.weight"], value)


def test_a_head_is_not_merged_away(tmp_path):
    small_bert().save_pretrained(tmp_path / "base")
    small_classifier().save_pretrained(tmp_path / "source")
    base = open_checkpoint(tmp_path / "base")
    source = as_source(base, open_checkpoint(tmp_path / "source"))
    with pytest.raises(ValueError, match=r"base lacks 'classifier\.bias'"):
        check_compatible(base, [source])


dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@given(base=dtypes, others=st.lists(dtypes, min_size=1, max_size=4))
def test_working_dtypes_keep_every_number(tmp_path_factory, base, others):
    path = tmp_path_factory.mktemp("mixed")
    checkpoints = []
    for index, dtype in enumerate([base, *others]):
        state = {"w": torch.linspace(0, 1, 7).to(dtype), "n": torch.tensor([index])}
        save_file(state, path / f"{index}.safetensors")
        checkpoints.append(open_checkpoint(path / f"{index}.safetensors"))
    start, sources = in_working_dtypes(checkpoints[0], checkpoints[1:])
    wide = torch.float64 if torch.float64 in (base, *others) else torch.float32
    for stored, read in zip(checkpoints, [start, *sources], strict=True):
        assert read.entries["w"].dtype == read["w"].dtype == wide
        assert torch.equal(read["w"].to(stored["w"].dtype), stored["w"])
        assert read["n"].dtype == torch.int64


def test_working_dtypes_need_the_same_names(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"v": torch.ones(2)}, tmp_path / "b.safetensors")
    base, source = (open_checkpoint(tmp_path / f"{n}.safetensors") for n in "ab")
    with pytest.raises(ValueError, match="lacks 'w'"):
        in_working_dtypes(base, [source])


def test_integers_that_some_versions_store_and_others_make(pair):
    ids = torch.arange(8)[None]
    changed(pair[0], lambda state: state | {"embeddings.position_ids": ids})
    changed(pair[1], lambda state: state | {"counter": torch.tensor(3)})
    base = open_checkpoint(pair[0])
    source = as_source(base, open_checkpoint(pair[1]))
    assert set(source) == set(base)
    assert torch.equal(source["embeddings.position_ids"], ids)
    check_compatible(base, [source])
    # Counters are the base's too, whatever the sources have counted.
    changed(pair[0], lambda state: state | {"counter": torch.tensor(1)})
    base = open_checkpoint(pair[0])
    assert as_source(base, open_checkpoint(pair[1]))["counter"] == 1
    # A weight that is missing is no such thing.
    changed(pair[1], lambda s: {k: v for k, v in s.items() if "LayerNorm" not in k})
    lacking = as_source(base, open_checkpoint(pair[1]))
    with pytest.raises(ValueError, match="lacks"):
        check_compatible(base, [lacking])
