from functools import reduce
from operator import add

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from simulate.moments import Moments

EPS = np.finfo(np.float64).eps
blocks = st.lists(
    arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)),
    min_size=1,
    max_size=10,
)


@given(blocks, st.sampled_from([0.0, 1e6]))
def test_blocks_add_up_to_the_whole(values, offset):
    # The offset makes sum(x^2) - n mean^2 lose twelve digits; merging may not.
    values = [offset + block for block in values]
    whole = np.concatenate(values)
    moments = reduce(add, map(Moments.of, values))
    assert moments.count == len(whole)
    # At most 20 roundings of the mean a block; a deviation inherits them.
    mean_error = 40 * EPS * (1 + offset)
    assert_allclose(moments.mean, whole.mean(), rtol=0, atol=mean_error)
    scatter = len(whole) * whole.var()
    atol = len(whole) * (2 * mean_error + 40 * EPS)
    assert_allclose(moments.scatter, scatter, rtol=0, atol=atol)


def test_stderr_by_hand():
    # Deviations -1, 0, 1: variance 2/2, over 3 samples.
    assert Moments.of(np.array([1.0, 2.0, 3.0])).stderr == np.sqrt(1 / 3)
