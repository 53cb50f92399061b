from itertools import combinations

import pytest
import torch
from torch.testing import assert_close

from mloss.digits import TASKS, Recipe, load_digits_models
from mloss.digits.examination import (
    answers,
    features_of,
    features_of_experts,
)
from mloss.digits.heads import class_mean_head

QUICK = Recipe(pretraining_steps=8, fine_tuning_steps=2, learning_rates=(1e-3,))


def trained_anew(tmp_path, monkeypatch, name, **choices):
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path / name))
    return load_digits_models(**{"recipe": QUICK} | choices)


def test_a_seed_decides_the_models(tmp_path, monkeypatch):
    first = trained_anew(tmp_path, monkeypatch, "first")
    again = trained_anew(tmp_path, monkeypatch, "again")
    # Torch reads 32 bits of a seed; what lies beyond must not be lost.
    others = [
        trained_anew(tmp_path, monkeypatch, f"seed {seed}", seed=seed)
        for seed in (1, 2**12, 2**40)
    ]
    assert_close(first.base, again.base, rtol=0, atol=0)
    for ours, theirs in zip(first.fine_tunes, again.fine_tunes, strict=True):
        assert_close(ours.state, theirs.state, rtol=0, atol=0)
    for other in others:
        assert not torch.equal(first.base["stem.weight"], other.base["stem.weight"])


def test_threads_do_not_decide_the_models(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(trained_anew(tmp_path, monkeypatch, str(count)).base)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert_close(*found, rtol=0, atol=0)


def test_one_fine_tune_for_each_task_and_rate(digits):
    rates = digits.recipe.learning_rates
    names = [tuned.name for tuned in digits.fine_tunes]
    assert len(names) == len(set(names)) == len(TASKS) * len(rates)
    for rate in rates:
        experts = digits.experts(rate)
        assert [expert.task for expert in experts] == [task.name for task in TASKS]
    with pytest.raises(ValueError, match="learning_rate"):
        digits.experts(0.3)


def test_splits_hold_each_image_once(digits):
    together = torch.cat([split.images.flatten(1) for split in digits.splits.values()])
    everything = len(together), len(together.unique(dim=0))
    assert everything == (1797, 1797)
    assert together.min() == 0
    assert together.max() == 1


def test_tasks_really_differ(digits):
    split = digits.splits["validation"]
    for first, second in combinations(TASKS, 2):
        same_inputs = torch.equal(split.inputs(first), split.inputs(second))
        same_labels = torch.equal(split.labels(first), split.labels(second))
        assert not (same_inputs and same_labels), (first.name, second.name)
    for task in TASKS:
        assert set(split.labels(task).tolist()) == set(range(task.classes))


def test_every_expert_learned_what_the_base_had_not(digits):
    model = digits.encoder()
    rate = digits.recipe.learning_rates[1]
    experts = {expert.task: expert.state for expert in digits.experts(rate)}
    with torch.no_grad():
        base = answers(digits, features_of(model, digits.base), split="test").double()
        tuned = answers(digits, features_of_experts(model, experts), split="test")
    gain = tuned.double() - base
    stderr = gain.std(dim=1) / gain.shape[1] ** 0.5
    chance = torch.tensor([1 / task.classes for task in TASKS])
    assert (gain.mean(dim=1) > 5 * stderr).all()
    assert (base.mean(dim=1) > chance).all()


def test_learning_rates_span_small_and_large_steps(digits):
    def step(tuned):
        return sum(
            (tuned.state[key] - value).square().sum()
            for key, value in digits.base.items()
        ).sqrt()

    for task in TASKS:
        steps = [step(tuned) for tuned in digits.fine_tunes if tuned.task == task.name]
        assert steps == sorted(steps)
        assert steps[-1] > 5 * steps[0]


def test_unlabelled_images_come_from_every_task_equally(digits):
    images = digits.unlabelled(128)
    assert images.shape == (128, 8, 8)
    split = digits.splits["validation"]
    for index, task in enumerate(TASKS):
        own = slice(16 * index, 16 * (index + 1))
        assert torch.equal(images[own], split.inputs(task)[own])
    for count in (0, 100, 304):
        with pytest.raises(ValueError, match=f"got {count}"):
            digits.unlabelled(count)


def test_class_vectors_point_to_the_class_means():
    features = torch.tensor([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])
    head = class_mean_head(features, torch.tensor([0, 0, 1, 1]), classes=2)
    assert_close(head.weight, torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
    assert_close(head.logits(torch.tensor([[2.0, 7.0]])), torch.zeros(1, 2))
    right = head.correct(features, torch.tensor([0, 1, 1, 0]))
    assert right.tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match=r"classes \[2\]"):
        class_mean_head(features, torch.tensor([0, 0, 1, 1]), classes=3)
