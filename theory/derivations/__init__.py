"""Derivations that run: each step verified by sympy before it is printed."""

from collections.abc import Callable

from theory.derivations import (
    gelu,
    leaky_relu,
    logistic,
    relu,
    relu_distribution,
    total_variation,
    two_layer,
)
from theory.derivations.step import Derivation, DerivationError, Step

__all__ = ["DERIVATIONS", "Derivation", "DerivationError", "Step"]

DERIVATIONS: dict[str, Callable[[], Derivation]] = {
    "relu": relu.derivation,
    "leaky_relu": leaky_relu.derivation,
    "gelu": gelu.derivation,
    "relu_distribution": relu_distribution.derivation,
    "total_variation": total_variation.derivation,
    "two_layer": two_layer.derivation,
    "logistic": logistic.derivation,
}
