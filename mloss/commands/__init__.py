"""The command `mloss`: score, merge and rank models on disk."""

from mloss.commands.program import main

__all__ = ["main"]
