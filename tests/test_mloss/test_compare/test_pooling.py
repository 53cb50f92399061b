import pytest
import torch
import transformers
from checkpoint_models import small_bert, small_classifier, small_clip, small_llama

from mloss.compare.pooling import pooled
from mloss.given_models import either_tower
from mloss.inference import evaluating, forward

WORDS = torch.randint(2, 97, (3, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [0] * 5 + [1] * 2])


def output(model, batch, **options):
    with evaluating(model), pooled(model, **options) as seen:
        return forward(model, model.state_dict(), batch), seen.logits


def test_hidden_states_are_averaged_over_real_tokens():
    model = small_bert()
    batch = {"input_ids": WORDS, "attention_mask": MASK}
    with evaluating(model):
        hidden = model(**batch).last_hidden_state
    found, logits = output(model, batch)
    real = MASK.bool()
    expected = torch.stack([hidden[i, real[i]].mean(dim=0) for i in range(3)])
    assert not logits
    # A mean of at most seven float32 numbers of size about 1, in another order.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    first, _ = output(model, batch, pooling="first")
    torch.testing.assert_close(first, hidden[:, 0], rtol=0, atol=1e-6)


def test_logits_of_a_sample_stay_as_they_are():
    model = small_classifier()
    with evaluating(model):
        expected = model(WORDS).logits
    found, logits = output(model, {"input_ids": WORDS})
    assert logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_of_a_language_model_it_is_what_comes_next():
    model = small_llama()
    batch = {"input_ids": WORDS, "attention_mask": MASK}
    with evaluating(model):
        expected = model(**batch).logits[[0, 1, 2], [6, 3, 6]]
    found, logits = output(model, batch)
    assert logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_logits_of_each_token_are_no_row_of_a_sample():
    config = transformers.BertConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    for kind in (transformers.BertForMaskedLM, transformers.BertForTokenClassification):
        with pytest.raises(ValueError, match="several rows a sample"):
            output(kind(config), {"input_ids": WORDS})


def test_a_model_is_as_it_was_afterwards():
    plain, towers = small_bert(), either_tower(small_clip())
    own = towers.forward
    for model in (plain, towers):
        with pytest.raises(RuntimeError, match="stop"), pooled(model):
            raise RuntimeError("stop")
    assert "forward" not in vars(plain)
    assert towers.forward is own


def test_another_pooling_is_refused():
    with (
        pytest.raises(ValueError, match="pooling must be"),
        pooled(small_bert(), pooling="last"),
    ):
        pass
