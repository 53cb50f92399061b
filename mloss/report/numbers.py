"""Numbers as a reader wants them: as many digits as are known, and no NaN."""

import math

MISSING = "-"


def finite(value: float) -> float | None:
    """The value, or None for an infinite one, such as one sample's standard error."""
    return value if math.isfinite(value) else None


def short(value: float | None) -> str:
    """Three digits, as in 0.0500 and 3.56e-05."""
    return MISSING if value is None else f"{value:#.3g}".rstrip(".")


def with_error(value: float, stderr: float | None) -> str:
    """A value and its standard error, a question mark where that is not known."""
    return f"{short(value)} +- {'?' if stderr is None else f'{stderr:.1g}'}"


def percent(share: float | None) -> str:
    """Two digits, as in 0.46 % and 13 %; whole numbers from 10 on."""
    if share is None:
        return MISSING
    return f"{_hundredfold(share)} %"


def round_percent(limit: float) -> str:
    """A number that somebody chose, such as 5 %."""
    return f"{100 * limit:g} %"


def percent_with_error(share: float, stderr: float | None) -> str:
    """A share and its standard error, both in per cent."""
    error = "?" if stderr is None else f"{100 * stderr:.1g}"
    return f"{_hundredfold(share)} % +- {error} %"


def factor(ratio: float | None) -> str:
    """A ratio to two digits after the point, to three digits in all far from 1."""
    if ratio is None:
        return MISSING
    return f"{ratio:.2f}" if 0.01 <= ratio < 100 else f"{ratio:.3g}"


def correlation(value: float | None) -> str:
    """A correlation to two digits after the point."""
    return MISSING if value is None else f"{value:.2f}"


def _hundredfold(share: float) -> str:
    value = 100 * share
    return f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:#.2g}"
