"""Whether methods that look at samples of each task beat the average on the digits."""

import pytest
import torch

from mloss.digits import TASKS
from mloss.digits.examination import answers, features_of
from mloss.inference import evaluating
from mloss.merging import average
from mloss.merging.methods.adamerging import adamerging
from mloss.merging.methods.fisher import fisher
from mloss.merging.methods.regmean import regmean
from mloss.merging.methods.regmean_plus_plus import regmean_plus_plus

RATES = [1e-4, 5e-4, 2e-3]


@pytest.fixture(scope="module")
def given(digits):
    """The architecture, 64 unlabelled images of each task, and the tasks' heads."""
    images = digits.splits["validation"].images[:64]
    return {
        "model": digits.encoder(),
        "task_data": [task.transform(images).split(16) for task in TASKS],
        "heads": [digits.heads[task.name].logits for task in TASKS],
    }


def advantage(digits, model, merged, *, over):
    """Mean difference in accuracy over test images and tasks, and its error."""
    with evaluating(model):
        right = [
            answers(digits, features_of(model, state), split="test").double()
            for state in (merged, over)
        ]
    by_image = (right[0] - right[1]).mean(dim=0)
    return by_image.mean().item(), by_image.std().item() / len(by_image) ** 0.5


def merged_by(method, digits, rate, given, **options):
    experts = [expert.state for expert in digits.experts(rate)]
    without_heads = {k: v for k, v in given.items() if k != "heads"}
    inputs = given if method in (fisher, adamerging) else without_heads
    if method is fisher:
        options["generator"] = torch.Generator().manual_seed(0)
    ours = method(digits.base, experts, **inputs, **options)
    return ours, average(digits.base, experts)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("method", [fisher, regmean, regmean_plus_plus])
def test_by_its_defaults_it_beats_the_average(digits, given, method, rate):
    ours, plain = merged_by(method, digits, rate, given)
    mean, stderr = advantage(digits, given["model"], ours, over=plain)
    assert mean > 3 * stderr


def test_16_probes_merge_as_well_as_the_exact_fisher(digits, given):
    ours, exact = (
        merged_by(fisher, digits, 5e-4, given, probes=n)[0] for n in (16, None)
    )
    mean, stderr = advantage(digits, given["model"], ours, over=exact)
    assert stderr < 0.003
    assert abs(mean) < 3 * stderr


def test_adamerging_wins_by_where_it_starts_and_not_by_what_it_learns(digits, given):
    start, plain = merged_by(adamerging, digits, 5e-4, given, steps=0)
    learned, _ = merged_by(adamerging, digits, 5e-4, given, steps=100)
    model = given["model"]
    by_start, error = advantage(digits, model, start, over=plain)
    assert by_start > 3 * error
    by_learning, error = advantage(digits, model, learned, over=start)
    assert by_learning < 3 * error
