"""Proved bounds: printed outward, and able to refuse an exact value."""

from dataclasses import replace

import numpy as np
import pytest

from paper_checks import proved
from paper_checks.two_routes import RATIOS, Agreement
from theory import Enclosure, expected_mloss


def test_an_interval_is_rounded_outward():
    assert proved.interval(Enclosure(0.12345, 0.12345), decimals=3) == "[0.123, 0.124]"
    assert proved.interval(Enclosure(-1.5, 0.5), decimals=1) == "[-1.5, 0.5]"


def agreement(name):
    exact = expected_mloss(name, np.array(RATIOS), 1.0)
    return Agreement(1.0, exact, exact, stderr=exact / 1e3)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_exact_values_are_within_and_a_billionth_more_is_not(name):
    cell = agreement(name)
    assert proved.doubt(name, [cell]) == ""
    off = replace(cell, exact=cell.exact * np.array([1, 1, 1 + 1e-9, 1, 1]))
    assert "k/sigma = 100 is outside its proved bounds" in proved.doubt(name, [off])
