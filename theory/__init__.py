"""What expected M-Loss is: closed forms, bounds, and the paper's printed formulas."""

from theory.activations import Activation, LeakyReLU
from theory.certified import Enclosure, certified_mloss
from theory.expectation import expected_mloss
from theory.many import Evaluation, estimated_mloss
from theory.printed import paper_approximation
from theory.variation import mloss_bound, total_variation

__all__ = [
    "Activation",
    "Enclosure",
    "Evaluation",
    "LeakyReLU",
    "certified_mloss",
    "estimated_mloss",
    "expected_mloss",
    "mloss_bound",
    "paper_approximation",
    "total_variation",
]
