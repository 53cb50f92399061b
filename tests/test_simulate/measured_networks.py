"""Measurements of a few small random networks, for several test files."""

import numpy as np

from simulate.networks import measure_networks

WIDTHS = (5, 7, 6, 4, 3)


def measure(**changes):
    settings = {
        "widths": WIDTHS,
        "sigma": 0.3,
        "networks": 40,
        "inputs": 4,
        "rng": np.random.default_rng(0),
    } | changes
    return measure_networks(settings.pop("widths"), settings.pop("sigma"), **settings)
