"""Layers of nodes, plain and normalised: expectations of Eqs. 3, 6 and 7."""
