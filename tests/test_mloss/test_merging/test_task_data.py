import math

import pytest
import torch
from torch import nn

from mloss.inference import evaluating
from mloss.merging.from_samples.task_data import own_tasks, predictions, real_rows


class Tagged(nn.Module):
    """Two scores for each token, in named outputs beside the hidden states."""

    def __init__(self, names=("hidden", "logits")):
        super().__init__()
        self.hidden, self.scores = nn.Linear(3, 4), nn.Linear(4, 2)
        self.names = names

    def forward(self, tokens, **_):
        hidden = self.hidden(tokens)
        outputs = {"hidden": hidden, "logits": self.scores(hidden)}
        return {name: outputs[name] for name in self.names}


def predicted(model, batch, head=None):
    with evaluating(model):
        return predictions(model, model.state_dict(), batch, head=head)


def batch():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    return {"tokens": torch.randn(2, 3, 3), "attention_mask": mask}


def test_logits_are_what_the_model_calls_so_without_the_padding():
    torch.manual_seed(0)
    model, inputs = Tagged(), batch()
    ours = predicted(model, inputs)
    logits = model(**inputs)["logits"]
    assert ours.are_logits
    assert torch.equal(
        ours.rows, torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]])
    )


def test_without_a_name_or_a_head_the_first_output_is_an_embedding():
    torch.manual_seed(0)
    model, inputs = Tagged(names=("hidden",)), batch()
    ours = predicted(model, inputs)
    assert not ours.are_logits
    assert ours.rows.shape == (3, 4)


def test_a_head_reads_logits_off_the_first_output():
    torch.manual_seed(0)
    model, head = nn.Linear(3, 4), nn.Linear(4, 2)
    x = torch.randn(5, 3)
    ours = predicted(model, x, head)
    assert ours.are_logits
    assert torch.equal(ours.rows, head(model(x)))


def test_what_has_no_axis_of_tokens_has_no_padding():
    values = torch.randn(2, 4)
    assert torch.equal(real_rows(values, batch()), values)


def test_every_source_has_its_batches_and_its_head():
    one, two = torch.ones(2, 3), [torch.zeros(1, 3), torch.zeros(4, 3)]
    first, second = own_tasks([one, two], [torch.relu, torch.tanh], q=2)
    assert first.batches[0] is one
    assert [len(b) for b in second.batches] == [1, 4]
    assert (first.head, second.head) == (torch.relu, torch.tanh)
    assert own_tasks([one], q=1)[0].head is None


@pytest.mark.parametrize(
    ("task_data", "heads", "error", "complaint"),
    [
        (torch.ones(2, 3), None, TypeError, "task_data must be a sequence .* Tensor"),
        ({"x": torch.ones(2, 3)}, None, TypeError, "must be a sequence .* got dict"),
        ([torch.ones(2, 3)], None, ValueError, "each of the 2 source models, got 1"),
        ([torch.ones(2, 3)] * 2, [abs], ValueError, "heads must hold .* got 1"),
        ([torch.ones(2, 3)] * 2, [abs, 3], TypeError, r"heads\[1\] must be callable"),
        ([torch.ones(2, 3), []], None, ValueError, "at least one batch, got none"),
    ],
)
def test_a_bad_call_is_named(task_data, heads, error, complaint):
    with pytest.raises(error, match=complaint):
        own_tasks(task_data, heads, q=2)


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (torch.sum, "one row for each of the 5 samples"),
        (lambda y: y.flatten(), "one row for each of the 5 samples"),
        (lambda y: y * math.inf, "the output has an infinity"),
    ],
)
def test_predictions_that_cannot_be_used_are_named(head, complaint):
    model = nn.Linear(3, 4)
    with pytest.raises(ValueError, match=complaint):
        predicted(model, torch.ones(5, 3), head)
