import pytest
import torch

from mloss.compare import Candidate, default_candidates, default_grid, grid
from mloss.compare.candidates import GRIDS
from mloss.merging import METHODS


def test_a_grid_has_every_combination():
    found = grid("ties", density=(0.1, 0.2), scale=(1.0, 2.0))
    assert [one.options for one in found] == [
        {"density": 0.1, "scale": 1.0},
        {"density": 0.1, "scale": 2.0},
        {"density": 0.2, "scale": 1.0},
        {"density": 0.2, "scale": 2.0},
    ]
    assert grid("average") == (Candidate("average"),)


def test_every_default_grid_names_options_of_its_method():
    # Candidates check their options as they are made.
    assert all(default_grid(method) for method in METHODS)
    assert {one.method for one in default_candidates()} == set(GRIDS)


def test_options_that_a_name_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="got a Tensor for density"):
        Candidate("ties", {"density": torch.tensor(0.2)})
