"""A derivation: equations in order, each with the sentence that says why it holds.

No equation is taken on trust: a step carries the way in which sympy verifies it, and
a derivation that fails a step raises before it prints.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import fill, indent
from typing import Any, Protocol

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types


class DerivationError(Exception):
    """A step that the computer could not verify."""


class Check(Protocol):
    """How the computer verifies a step."""

    @property
    def relation(self) -> Callable[..., Any]:
        """What the step claims of its two sides: sympy's Eq or Ge."""

    @property
    def method(self) -> str:
        """The words that end 'verified by ...'."""

    def holds(self, left: Any, right: Any) -> bool:
        """Whether the claim is verified; False too where sympy cannot tell."""


@dataclass(frozen=True)
class Simplifies:
    """Both sides agree once integrals, limits and derivatives are carried out."""

    relation = sp.Eq
    method = "evaluation: the difference simplifies to zero"

    def holds(self, left: Any, right: Any) -> bool:
        """left - right simplifies to zero."""
        return is_zero(left - right)


@dataclass(frozen=True)
class Differentiates:
    """Both sides have one derivative in `variable`, and agree at the point `at`.

    With `times` = 2 it is the second derivative that is compared, and the first that
    must agree at `at` as well. `at` may be infinite: the limit is then taken.
    """

    variable: Any
    at: Any
    times: int = 1
    relation = sp.Eq

    @property
    def method(self) -> str:
        """Name the variable and the point of agreement."""
        once = "differentiating" if self.times == 1 else "differentiating twice"
        at = "∞" if self.at is sp.oo else self.at
        return f"{once} in {self.variable}, with agreement at {self.variable} = {at}"

    def holds(self, left: Any, right: Any) -> bool:
        """The derivatives agree everywhere, the lower ones at the point."""
        difference = left - right
        for _ in range(self.times):
            if not is_zero(self._at_the_point(difference)):
                return False
            difference = sp.diff(difference, self.variable)
        return is_zero(difference)

    def _at_the_point(self, difference: Any) -> Any:
        if sp.sympify(self.at).is_infinite:
            explicit = difference.rewrite(sp.erfc).doit()
            return sp.limit(explicit, self.variable, self.at)
        return difference.subs(self.variable, self.at)


@dataclass(frozen=True)
class Expands:
    """The right side is the Taylor polynomial of the left in `variable` about 0."""

    variable: Any
    order: int
    relation = sp.Eq

    @property
    def method(self) -> str:
        """Name the variable and the order."""
        return f"Taylor expansion in {self.variable} to order {self.order}"

    def holds(self, left: Any, right: Any) -> bool:
        """The derivatives at 0 agree up to the order; the right is a polynomial."""
        terms = range(self.order + 1)
        taylor = sum(
            sp.diff(left, self.variable, n).subs(self.variable, 0).doit()
            * self.variable**n
            / sp.factorial(n)
            for n in terms
        )
        return is_zero(taylor - right)


@dataclass(frozen=True)
class IsNonNegative:
    """left >= right, by the signs of the symbols in their difference."""

    relation = sp.Ge
    method = "the signs of its factors"

    def holds(self, left: Any, right: Any) -> bool:
        """Sympy knows left - right to be >= 0 from what it knows of the symbols."""
        explicit = (left - right).rewrite(sp.erf)
        return bool(sp.factor(sp.simplify(explicit)).is_nonnegative)


def is_zero(expression: Any) -> bool:
    """Whether sympy finds the expression to be zero, special functions rewritten."""
    explicit = expression.rewrite(sp.erf).doit().rewrite(sp.erf)
    if explicit.has(sp.Max, sp.Min):
        explicit = explicit.rewrite(sp.Abs)
    if explicit.has(sp.tanh):
        explicit = explicit.rewrite(sp.exp)
    return bool(sp.simplify(sp.expand(sp.simplify(explicit))) == 0)


@dataclass(frozen=True)
class Step:
    """One equation or inequality, the sentence before it and how it is verified."""

    says: str
    left: Any
    right: Any
    check: Check = field(default_factory=Simplifies)

    @property
    def statement(self) -> Any:
        """The two sides with their relation, nothing evaluated."""
        return self.check.relation(self.left, self.right, evaluate=False)

    def holds(self) -> bool:
        """Whether the computer verifies the step."""
        return self.check.holds(sp.sympify(self.left), sp.sympify(self.right))


@dataclass(frozen=True)
class Derivation:
    """Steps that lead to a result, and the sentence that states it."""

    name: str
    title: str
    steps: tuple[Step, ...]
    conclusion: str

    def verify(self) -> None:
        """Verify every step; DerivationError names the first that fails."""
        for number, step in enumerate(self.steps, 1):
            if not step.holds():
                raise DerivationError(
                    f"{self.name}, step {number} ({step.says}): not verified by "
                    f"{step.check.method}: {step.statement}"
                )

    def text(self) -> str:
        """The derivation for a terminal, in Unicode mathematics."""
        parts = [self.title]
        for number, step in enumerate(self.steps, 1):
            formula = sp.pretty(step.statement, use_unicode=True, wrap_line=False)
            parts += [
                _paragraph(f"{number}. {step.says}"),
                indent(formula, "     "),
                indent(_paragraph(f"Verified by {step.check.method}."), "   "),
            ]
        return "\n\n".join([*parts, _paragraph(self._hence)])

    def latex(self) -> str:
        """The derivation as a LaTeX section, for a document that uses amsmath."""
        parts = [rf"\section*{{{self.title}}}", r"\begin{enumerate}"]
        for step in self.steps:
            formula = sp.latex(step.statement)
            parts.append(f"\\item {_escaped(step.says)}\n\\[\n{formula}\n\\]")
            parts.append(_escaped(f"Verified by {step.check.method}."))
        return "\n".join([*parts, r"\end{enumerate}", _escaped(self._hence)])

    @property
    def _hence(self) -> str:
        return f"Hence {self.conclusion}"


_LATEX_TEXT = str.maketrans(
    {"_": r"\_", "^": r"\^{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)


def _escaped(sentence: str) -> str:
    return sentence.translate(_LATEX_TEXT).replace("∞", r"$\infty$")


def _paragraph(sentence: str) -> str:
    return fill(sentence, width=88, subsequent_indent="   ")
