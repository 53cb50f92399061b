"""The gated node f(g) * u of SwiGLU and its kin: two pre-activations at once."""

from theory.gated.expectation import expected_gated_mloss
from theory.gated.limits import gated_mloss_bound, gated_mloss_limit

__all__ = ["expected_gated_mloss", "gated_mloss_bound", "gated_mloss_limit"]
