import pytest
import torch

from mloss.merging.from_samples.halves import chosen, halves


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_every_sample_is_in_one_half(count):
    first, second = halves(count)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(count))
    assert 0 <= len(first) - len(second) <= 1
    assert all(
        torch.equal(*pair) for pair in zip(halves(count), (first, second), strict=True)
    )


@pytest.mark.parametrize("turns", [2, 4])
def test_samples_that_come_in_turns_are_in_both(turns):
    # Of 64 samples a half holds each turn some 16 times, and never all of one.
    first, _ = halves(64)
    counts = torch.bincount(first % turns, minlength=turns)
    assert counts.min() > 0.5 * 32 / turns


def test_all_arguments_of_a_batch_go_along():
    batch = {"a": torch.arange(4), "b": 10 * torch.arange(4)}
    taken = chosen(batch, torch.tensor([2, 0]))
    assert {name: v.tolist() for name, v in taken.items()} == {
        "a": [2, 0],
        "b": [20, 0],
    }
    assert chosen(torch.arange(4), torch.tensor([3])).tolist() == [3]
