import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mloss.merging.pruning import kth_largest as module
from mloss.merging.pruning.kth_largest import kth_largest

INFINITY = math.inf
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
few_values = st.sampled_from([-1.0, -0.0, 0.0, 1e-300, 1.0, math.nextafter(1.0, 2.0)])


def in_pieces(rows, *, passes):
    """Rows piece by piece, noting every pass over them."""

    def pieces():
        passes.append(None)
        for start in range(0, len(rows[0]), 3):
            for index, row in enumerate(rows):
                yield index, row[start : start + 3]

    return pieces


def found(rows, counts, *, at_hand=2**25, together=2**17):
    """What is found, and in how many passes, with room for so many numbers."""
    rows, passes = [torch.tensor(row, dtype=torch.float64) for row in rows], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_HAND", at_hand)
        patch.setattr(module, "_TOGETHER", together)
        values = kth_largest(in_pieces(rows, passes=passes), counts, size=len(rows[0]))
    return values.tolist(), len(passes)


def expected(rows, counts):
    return [
        sorted(row, reverse=True)[count - 1] if count else INFINITY
        for row, count in zip(rows, counts, strict=True)
    ]


@st.composite
def searches(draw):
    size = draw(st.integers(1, 20))
    row = st.lists(numbers | few_values, min_size=size, max_size=size)
    rows = draw(st.lists(row, min_size=1, max_size=4))
    return rows, [draw(st.integers(0, size)) for _ in rows]


@given(search=searches(), at_hand=st.sampled_from([0, 5, 100]))
def test_the_one_that_sorting_finds_however_little_is_held(search, at_hand):
    values, _ = found(*search, at_hand=at_hand, together=2)
    assert values == expected(*search)


def test_how_often_the_numbers_are_gone_through():
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1000, generator=generator, dtype=torch.float64).tolist()
    assert found([row], [200])[1] == 1
    assert found([row], [200], at_hand=100)[1] == 2
    # All alike: only their last bits tell that.
    assert found([[0.1] * 1000], [200], at_hand=100) == ([0.1], 4)
    assert found([row], [0])[1] == 0


def test_no_numbers_at_all():
    assert found([[]], [0]) == ([INFINITY], 0)
