"""Unlabelled samples from the files people have, prepared for a checkpoint's model."""

from mloss.calibration.samples import Calibration, open_calibration

__all__ = ["Calibration", "open_calibration"]
