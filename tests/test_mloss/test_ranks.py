"""Two processes that share the samples of a run."""

import pytest
import torch
from torch import multiprocessing, nn
from torch.testing import assert_close

from mloss import score
from mloss.ranks import gathered, own_samples

EPS = torch.finfo(torch.float64).eps


def family():
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.SiLU()).double()
        for _ in range(4)
    ]


def data():
    """More samples than are kept for quantiles, and a batch with one sample."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(600, 3, 4, generator=generator, dtype=torch.float64)
    return x.split([1, 300, 299])


def scored(until=None):
    base, *sources = family()
    return score(base, sources, data(), weights=[0.5, 0.3, 0.2], until=until)


def entries(found):
    return [{"samples": found.samples}, *(vars(site) for site in found.sites)]


def scored_by(rank, folder, until):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    torch.save(entries(scored(until)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("until", [None, 0.5])
def test_two_processes_find_what_one_does(tmp_path, until):
    multiprocessing.spawn(scored_by, args=(tmp_path, until), nprocs=2)
    alone = entries(scored(until))
    assert alone[0]["samples"] == (301 if until else 600)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for ours, theirs, reference in zip(first, second, alone, strict=True):
        for name, value in reference.items():
            if isinstance(value, str | bool | tuple):
                assert ours[name] == value
                continue
            assert_close(ours[name], theirs[name], rtol=0, atol=0)
            # 600 numbers are added in another order; predictions pass that on.
            assert_close(ours[name], value, rtol=1e4 * EPS, atol=0)


def test_a_process_alone_has_every_sample():
    assert list(range(5))[own_samples(5)] == list(range(5))
    assert gathered("mine") == ["mine"]
