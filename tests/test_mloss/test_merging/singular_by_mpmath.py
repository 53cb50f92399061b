"""Singular values to 40 digits, and how far rounding may move what is made of them."""

import mpmath
import torch
from mpmath import mp

EPS = torch.finfo(torch.float64).eps
DIGITS = 40


def exact(tensor):
    """The same numbers as a matrix of mpmath."""
    return mpmath.matrix(tensor.tolist())


def svd(matrix, *, full=False):
    """U, the list of singular values, V with matrix = U diag V."""
    with mp.workdps(DIGITS):
        left, sizes, right = mp.svd_r(matrix, full_matrices=full)
    return left, list(sizes), right


def columns(*matrices):
    """Matrices side by side."""
    return mpmath.matrix(
        [
            [matrix[i, j] for matrix in matrices for j in range(matrix.cols)]
            for i in range(matrices[0].rows)
        ]
    )


def diagonal(sizes):
    """A square matrix with these numbers on its diagonal."""
    return mpmath.diag(sizes)


def rounded(matrix):
    """Back to a tensor in float64."""
    rows = [
        [float(matrix[i, j]) for j in range(matrix.cols)] for i in range(matrix.rows)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def value_and_tolerance(function, matrices):
    """function(matrices) and how far a stable computation in float64 may be from it.

    Backward stable steps give the exact value of inputs that are off by some eps of
    their size: 50 for a few decompositions of matrices with up to 8 rows. What that
    does to the value is measured, along 2 random directions; the worst direction of the
    some 100 entries is at most 10 times as bad, and 3 is left over.
    """
    with mp.workdps(DIGITS):
        value = rounded(function([exact(matrix) for matrix in matrices]))
        generator = torch.Generator().manual_seed(0)
        worst = 0.0
        for _ in range(2):
            moved = [
                exact(m + 1e-9 * m.norm() * _direction(m, generator)) for m in matrices
            ]
            worst = max(worst, (rounded(function(moved)) - value).norm().item())
    return value, 30 * 50 * EPS * worst / 1e-9


def _direction(like, generator):
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm()
