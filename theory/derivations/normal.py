"""The standard normal density and distribution function as sympy functions.

They print as phi(z) and Phi(z) and differentiate as such; a check rewrites them to
exp, erf and erfc.
"""

from typing import Any

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types


class Density(sp.Function):  # type: ignore[misc]  # sympy ships no types
    """phi(z) = exp(-z^2 / 2) / sqrt(2 pi)."""

    def fdiff(self, argindex: int = 1) -> Any:  # noqa: ARG002  # sympy's signature
        """phi' = -z phi."""
        return -self.args[0] * self

    def _eval_rewrite_as_erf(self, z: Any, **_: Any) -> Any:
        return sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)

    _eval_rewrite_as_erfc = _eval_rewrite_as_erf

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _called(r"\varphi", self.args[0], printer, exp)

    def _pretty(self, printer: Any) -> Any:
        return printer._print_Function(self, func_name="φ")


class Distribution(sp.Function):  # type: ignore[misc]  # sympy ships no types
    """Phi(z), the integral of phi from minus infinity to z."""

    def fdiff(self, argindex: int = 1) -> Any:  # noqa: ARG002  # sympy's signature
        """Phi' = phi."""
        return Density(self.args[0])

    def _eval_rewrite_as_erf(self, z: Any, **_: Any) -> Any:
        return (1 + sp.erf(z / sp.sqrt(2))) / 2

    def _eval_rewrite_as_erfc(self, z: Any, **_: Any) -> Any:
        return sp.erfc(-z / sp.sqrt(2)) / 2

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _called(r"\Phi", self.args[0], printer, exp)

    def _pretty(self, printer: Any) -> Any:
        return printer._print_Function(self, func_name="Φ")


def _called(name: str, argument: Any, printer: Any, exp: str | None) -> str:
    power = f"^{{{exp}}}" if exp else ""
    return rf"{name}{power}\left({printer._print(argument)}\right)"
