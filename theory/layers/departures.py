r"""The departures d_i = e_i - sum_j w_j e_j of the sources from the merged error.

The gap S = sum_i w_i f(m + d_i) - f(m) is a function of them and of m. Given them the
merged error is Gaussian, of one deviation whatever they are: so m, which is x plus
it, has a density in closed form. Two sources' departures are multiples of
u = e_1 - e_2, and a quadrature in u stands for their law. docs/layer.md, section 1.
"""

from dataclasses import dataclass

import numpy as np

from theory.activations import Activation, Array
from theory.law import ErrorLaw
from theory.layers.step_panels import step_rule
from theory.signed import phi

_CUT = 8.5  # standard deviations; what lies beyond has 1e-15 of the second moment
# Of |u| from one panel to the next; finer where roots of S meet kinks of f, as the
# mean given u then bends in between.
_GROWTH, _FINE = 2.0, 1.25


@dataclass(frozen=True)
class Departures:
    """Rows of departures [row, source] that stand for their law by `measure` [row].

    Given a row the merged error is N(drift, spread^2), with a drift [row] for each.
    """

    values: Array
    measure: Array
    drift: Array
    spread: float

    def rows(self, chosen: slice) -> "Departures":
        """Some of the rows."""
        return Departures(
            self.values[chosen], self.measure[chosen], self.drift[chosen], self.spread
        )


def pair_departures(f: Activation, k: float, sigma: float, law: ErrorLaw) -> Departures:
    """The departures (w_2 u, -w_1 u) of two sources, by panels in |u|."""
    pair, (w1, w2) = law.pair(), law.weights
    deviation = sigma * pair.deviation
    u, measure = step_rule(_sizes(f, k, sigma, law))
    measure = measure * phi(u / deviation) / deviation
    if w1 == w2 and pair.drift == 0:
        measure = 2 * measure  # the gap does not see the sign of u
    else:
        u, measure = np.append(u, -u), np.append(measure, measure)
    values = np.stack([w2 * u, -w1 * u], axis=1)
    return Departures(values, measure, pair.drift * u, sigma * pair.spread)


def _sizes(f: Activation, k: float, sigma: float, law: ErrorLaw) -> Array:
    """Panel edges in |u|: geometric from the finer scale, and where kinks meet."""
    pair = law.pair()
    top = _CUT * sigma * pair.deviation
    low, high = f.reach
    bottom = min(top / _CUT, (high - low) / 40 or np.inf) / 4
    meeting = bool(f.kinks) and not f.bends_one_way()
    growth = _FINE if meeting and law.weights[0] != law.weights[1] else _GROWTH
    panels = int(np.ceil(np.log(top / bottom) / np.log(growth)))
    kinks = np.array(f.kinks)
    apart = np.abs(kinks[:, None] - kinks).ravel()
    meet = [apart / weight for weight in (1.0, *law.weights)]
    if pair.spread < pair.deviation / 4:
        meet += _ends_met(f, k, law)
    edges = np.concatenate([[0.0], np.geomspace(bottom, top, panels + 1), *meet])
    capped: Array = np.minimum(edges, top)
    return capped


def _ends_met(f: Activation, k: float, law: ErrorLaw) -> list[Array]:
    """|u| where a bend of f, as an argument sees it, passes an end of the range of m.

    When the merged error follows u closely the mean given u bends there.
    """
    marks = np.array([*np.linspace(*f.reach, 5), *f.kinks])
    (w1, w2), drift = law.weights, law.pair().drift
    slopes = [slope for slope in (drift, drift + w2, drift - w1) if slope != 0]
    return [np.abs((marks + end) / slope) for slope in slopes for end in (-k, k)]
