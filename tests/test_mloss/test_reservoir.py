import torch

from mloss.reservoir import Reservoir


def drawn(rows, seed):
    return torch.rand(
        rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def filled(rows, keys, *, size, blocks):
    reservoir = Reservoir(size)
    for block in zip(rows.split(blocks), keys.split(blocks), strict=True):
        reservoir.add(*block)
    return reservoir


def test_everything_is_kept_until_there_is_more():
    rows = torch.arange(12.0).reshape(6, 2)
    kept = filled(rows, drawn(6, 0), size=6, blocks=4).rows
    assert torch.equal(kept[kept[:, 0].argsort()], rows.double())


def test_every_row_is_as_likely_to_stay():
    # 2,000 draws of 5 from 20: a row stays 500 times, give or take 19.4.
    kept, rows = torch.zeros(20), torch.arange(20.0)[:, None]
    for seed in range(2000):
        reservoir = filled(rows, drawn(20, seed), size=5, blocks=7)
        kept[reservoir.rows[:, 0].long()] += 1
    assert kept.sum() == 10_000
    # The largest of 20 normal deviations passes 4.5 once in 7,000 seeds.
    assert (kept - 500).abs().max() < 4.5 * 19.4


def test_neither_blocks_nor_joining_change_what_stays():
    rows, keys = torch.randn(50, 3), drawn(50, 0)
    whole = filled(rows, keys, size=5, blocks=50)
    blocks = filled(rows, keys, size=5, blocks=3)
    halves = filled(rows[30:], keys[30:], size=5, blocks=20)
    halves.join(Reservoir(5))
    halves.join(filled(rows[:30], keys[:30], size=5, blocks=30))
    assert torch.equal(whole.rows, blocks.rows)
    assert torch.equal(whole.rows, halves.rows)
