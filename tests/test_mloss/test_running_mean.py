import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mloss.running_mean import RunningMean, joined, token_means

EPS = np.finfo(np.float64).eps


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 1e6]),
    seed=st.integers(0, 2**31),
)
def test_batches_give_the_mean_and_standard_error_of_the_whole(sizes, offset, seed):
    values = offset + np.random.default_rng(seed).normal(size=(sum(sizes), 3))
    running = RunningMean()
    for batch in torch.from_numpy(values).split(sizes):
        running.add(batch)
    # At most 54 additions of numbers near the offset.
    tolerance = 64 * EPS * (1 + offset)
    np.testing.assert_allclose(running.mean, values.mean(0), rtol=0, atol=tolerance)
    assert running.count == sum(sizes)
    if running.count == 1:
        assert running.stderr.tolist() == [math.inf] * 3
    else:
        expected = values.std(0, ddof=1) / math.sqrt(running.count)
        np.testing.assert_allclose(running.stderr, expected, rtol=0, atol=tolerance)


def test_float32_is_accumulated_in_float64():
    running = RunningMean()
    for _ in range(1000):
        running.add(torch.full((1, 1), 0.1, dtype=torch.float32))
    # 1000 updates of a constant, whose difference from the mean is exactly zero.
    assert running.mean.item() == torch.tensor(0.1, dtype=torch.float32).item()


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    seed=st.integers(0, 2**31),
)
def test_means_join_to_that_of_all_samples(sizes, seed):
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(sizes), 3)))
    parts, whole = [RunningMean() for _ in sizes], RunningMean()
    whole.add(values)
    for part, own in zip(parts, values.split(sizes), strict=True):
        if len(own):
            part.add(own)
    together = joined(parts)
    assert together.count == whole.count
    # At most 54 additions of numbers below 5, whose squares are below 25.
    np.testing.assert_allclose(together.mean, whole.mean, rtol=0, atol=320 * EPS)
    if whole.count > 1:
        np.testing.assert_allclose(
            together.stderr, whole.stderr, rtol=0, atol=2e3 * EPS
        )


@pytest.mark.parametrize("tokens", [(), (4,), (2, 3)])
def test_tokens_are_averaged_within_their_sample(tokens):
    values = torch.randn(5, *tokens, 3, generator=torch.Generator().manual_seed(0))
    expected = values.mean(dim=tuple(range(1, values.ndim - 1))) if tokens else values
    torch.testing.assert_close(token_means(values), expected)
