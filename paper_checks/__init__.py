"""One check per claim of the M-Loss paper: `python -m paper_checks`."""
