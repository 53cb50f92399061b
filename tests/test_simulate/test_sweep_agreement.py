"""Whole sweeps against theory, which they share no line with."""

import numpy as np
import pytest
from scipy.stats import t as student

from simulate.sweep import sweep
from theory import estimated_mloss

ACTIVATIONS = ["relu", "leaky_relu", "gelu"]
FALSE_ALARM = 1e-6  # of a whole test


def compared(rows, *, rtol):
    """Simulation over theory, less 1, and the standard errors of each, by cell."""
    found = []
    for row in rows:
        at = row["activation"], row["k"], row["sigma"]
        claim = estimated_mloss(*at, q=row["q"], rtol=rtol)
        # Theory states three standard errors of its own, where it samples.
        errors = np.array([row["stderr"], claim.error / 3]) / claim.value
        found.append((row["value"] / claim.value - 1, *errors))
    return np.transpose(found)


def assert_agrees(table, *, rtol):
    """Every cell is within its interval, and so is the mean of each activation.

    The mean sees what is wrong by one factor everywhere, at a fraction of rtol.
    """
    rows = table.to_pylist()
    assert all(row["reached"] for row in rows)
    for name in ACTIVATIONS:
        mine = [row for row in rows if row["activation"] == name]
        degrees = np.array([row["degrees"] for row in mine])
        off, simulated, theory = compared(mine, rtol=rtol / 4)
        chance = 2 * student.sf(np.abs(off) / np.hypot(simulated, theory), degrees)
        assert chance.min() > FALSE_ALARM / len(rows)
        variance = simulated**2
        together = variance.sum() ** 2 / (variance**2 / degrees).sum()  # Satterthwaite
        # Theory starts each cell from one seed, so its errors may all be one.
        pooled = np.hypot(np.sqrt(variance.sum()) / len(mine), theory.mean())
        assert pooled < rtol / 4
        assert 2 * student.sf(abs(off.mean()) / pooled, together) > FALSE_ALARM


def test_a_sweep_agrees_with_theory_in_every_cell():
    table = sweep(
        ACTIVATIONS,
        [0.5, 10, 1e3, 1e6],
        [1.0],
        qs=[2, 3, 8],
        n=2**21,
        rng=np.random.default_rng(0),
        rtol=2e-3,
        workers=1,
    )
    assert_agrees(table, rtol=2e-3)


@pytest.mark.slow
def test_the_full_grid_agrees_with_theory_in_every_cell():
    table = sweep(
        ACTIVATIONS,
        [0.5, 1, 2, 5, 10, 30, 1e2, 1e3, 1e4, 1e5, 1e6],
        [1.0],
        qs=[2, 3, 8],
        n=2**22,
        rng=np.random.default_rng(1),
        rtol=1e-3,
    )
    assert_agrees(table, rtol=1e-3)
