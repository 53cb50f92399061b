"""Second derivatives of functions of state dicts, from values alone."""

import torch

# Weights of f(m h) - f(0), symmetric in m: the error is of order h^6.
_SIXTH_ORDER = {1: 3 / 2, 2: -3 / 20, 3: 1 / 90}


def curvature(function, centre, direction, *, step):
    """D^2 f(centre)[d, d], and twice its difference from that at twice the step.

    That is well above the truncation error, 64 times smaller at half the step, and
    above the rounding error, 4 times larger there and nearly all of the difference.
    """
    coarse, fine = (_at(function, centre, direction, step=h) for h in (step, step / 2))
    return fine, 2 * (coarse - fine).norm()


def mixed(function, centre, first, second, *, step):
    """D^2 f(centre)[a, b] by polarisation, and a bound on its error."""
    ahead, back = ({k: first[k] + sign * second[k] for k in first} for sign in (1, -1))
    plus, error = curvature(function, centre, ahead, step=step)
    minus, other = curvature(function, centre, back, step=step)
    return (plus - minus) / 4, (error + other) / 4


def _at(function, centre, direction, *, step):
    with torch.no_grad():
        here = function(centre)

        def change(steps):
            length = steps * step
            moved = {k: v + length * direction[k] for k, v in centre.items()}
            return function(moved) - here

        return (
            sum(weight * (change(m) + change(-m)) for m, weight in _SIXTH_ORDER.items())
            / step**2
        )
