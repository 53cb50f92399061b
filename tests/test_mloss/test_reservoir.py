import torch

from mloss.reservoir import Reservoir


def test_everything_is_kept_until_there_is_more():
    rows = torch.arange(12.0).reshape(6, 2)
    reservoir = Reservoir(6)
    for block in rows.split(4):
        reservoir.add(block)
    assert torch.equal(reservoir.rows, rows.double())


def test_every_row_is_as_likely_to_stay():
    # 2,000 draws of 5 from 20: a row stays 500 times, give or take 19.4.
    kept = torch.zeros(20)
    for seed in range(2000):
        reservoir = Reservoir(5, seed=seed)
        for block in torch.arange(20.0)[:, None].split(7):
            reservoir.add(block)
        kept[reservoir.rows[:, 0].long()] += 1
    assert kept.sum() == 10_000
    # The largest of 20 normal deviations passes 4.5 once in 7,000 seeds.
    assert (kept - 500).abs().max() < 4.5 * 19.4


def test_the_seed_decides():
    rows = torch.randn(50, 3)
    first, second, other = (Reservoir(5, seed=seed) for seed in (0, 0, 1))
    for reservoir in (first, second, other):
        reservoir.add(rows)
    assert torch.equal(first.rows, second.rows)
    assert not torch.equal(first.rows, other.rows)
