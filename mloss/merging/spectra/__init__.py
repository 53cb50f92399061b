"""Singular values and vectors of task matrices."""
