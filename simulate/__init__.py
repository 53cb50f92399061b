"""Monte Carlo estimates of M-Loss, computed from its definition and nothing else."""

from simulate.estimators import Estimate, estimate_mloss

__all__ = ["Estimate", "estimate_mloss"]
