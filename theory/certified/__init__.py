"""Expected M-Loss inside proved bounds, and proofs of statements about it."""

from theory.certified.claims import (
    Certificate,
    certificates,
    certified_total_variation,
    gelu_can_fall_below_relu,
    gelu_exceeds_relu,
    relu_constant_is_an_eighth,
    smooth_constant,
)
from theory.certified.enclosure import Enclosure
from theory.certified.expectation import certified_mloss

__all__ = [
    "Certificate",
    "Enclosure",
    "certificates",
    "certified_mloss",
    "certified_total_variation",
    "gelu_can_fall_below_relu",
    "gelu_exceeds_relu",
    "relu_constant_is_an_eighth",
    "smooth_constant",
]
