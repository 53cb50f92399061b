"""Variances over tasks and standard deviations over seeds, from the printed cells."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from statistics import pstdev, pvariance, stdev, variance

from scipy.stats import chi2

from paper_checks.claims.comparisons import BACKBONES, MERGING, margin_over_next
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim
from paper_checks.tables import Row, Table, printed_table, quoted_variances

Spread = Callable[[Iterable[Decimal]], Decimal]


def matches_printed(spread: Spread) -> int:
    """How many of the quoted variances the spread of the printed cells rounds to."""
    return sum(
        round(spread(_row(*labels).accuracies()), quoted.decimals) == quoted.value
        for labels, quoted in quoted_variances().items()
    )


@claim(
    "quoted-variances",
    where="Section 6.3",
    states="The variance of accuracy of M-TIES, TIES and DARE is 172.22, 203.27 and "
    "197.61 on ViT-B/32",
    recorded="confirmed",
)
def quoted_variances_of_table_1() -> Finding:
    """Recompute them with divisor n (population) and n - 1 (sample)."""
    population, sample = matches_printed(pvariance), matches_printed(variance)
    quoted = len(quoted_variances())
    samples = ", ".join(
        f"{variance(_row(*labels).accuracies()):.2f}" for labels in quoted_variances()
    )
    reproduced = max(population, sample) == quoted
    return Finding(
        Verdict.CONFIRMED if reproduced else Verdict.CORRECTED,
        found=f"{population} of {quoted} are the population variance (divisor n = 8) "
        f"of Table 1's cells and {sample} the sample variance ({samples})",
        uncertainty="none for the printed cells; their rounding could move a variance "
        f"by {_rounding_of_variance():.2f}",
        how=(How.ARITHMETIC,),
        truth="" if reproduced else "The quoted variances do not follow from Table 1.",
        numbers={"population_matches": population, "sample_matches": sample},
    )


@claim(
    "variance-shows-fairness",
    where="Section 6.3",
    states="Its smaller variance over tasks shows that M-TIES holds better stability "
    "and fairness",
    recorded="corrected",
)
def variance_shows_fairness() -> Finding:
    """Rank all merging methods by variance over tasks, and by their worst task."""
    tables = {backbone: _merging(backbone) for backbone in BACKBONES}
    spreads = {
        backbone: {row.labels[-1]: pvariance(row.accuracies()) for row in table.rows}
        for backbone, table in tables.items()
    }
    steadiest = {backbone: min(s, key=s.__getitem__) for backbone, s in spreads.items()}
    shown = all(method == "M-TIES" for method in steadiest.values())
    found = "; ".join(
        f"{backbone}: smallest {spreads[backbone][method]:.2f} ({method}), "
        f"M-TIES {spreads[backbone]['M-TIES']:.2f}"
        for backbone, method in steadiest.items()
    )
    worst = " and ".join(
        f"{_worst_task_margin(table):+.2f} on {backbone}"
        for backbone, table in tables.items()
    )
    return Finding(
        Verdict.CONFIRMED if shown else Verdict.CORRECTED,
        found=f"{found}. Worst task of M-TIES against the next best: {worst}",
        uncertainty="none for the printed cells; eight tasks, one run",
        how=(How.ARITHMETIC,),
        truth="The smallest variance of a merging method belongs to "
        + " and ".join(f"{m} on {b}" for b, m in steadiest.items())
        + ", whatever its accuracy; what speaks for fairness is that the worst task of "
        f"M-TIES is the best worst task ({worst} points).",
        numbers={
            f"{b} {m}": float(v) for b, s in spreads.items() for m, v in s.items()
        },
    )


@claim(
    "table-3-std",
    where="Table 3, row Std",
    states="The standard deviations over three seeds",
    recorded="confirmed",
)
def standard_deviations() -> Finding:
    """Recompute them with divisor n - 1 and n, to rounding."""
    sample, population = _std_matches(stdev), _std_matches(pstdev)
    columns = len(printed_table(3).columns)
    reproduced = max(sample, population) == columns
    return Finding(
        Verdict.CONFIRMED if reproduced else Verdict.CORRECTED,
        found=f"{sample} of {columns} are the sample standard deviation (divisor "
        f"n - 1 = 2), {population} the population one; the variances of Section 6.3 "
        "use the divisor n",
        uncertainty="rounding of the printed digits, 0.0011",
        how=(How.ARITHMETIC,),
        truth="" if reproduced else "Row Std does not follow from the three seeds.",
        numbers={"sample_matches": sample, "population_matches": population},
    )


@claim(
    "table-3-low-deviation",
    where="Section 6.4, Table 3",
    states="A low standard deviation over random draws of the 128 samples",
    recorded="confirmed",
)
def low_deviation() -> Finding:
    """Low: a tenth of M-TIES' lead over the next method, or less, in the average."""
    table = printed_table(3)
    seeds = table.where(lambda row: row.name != "Std")
    of_average = float(stdev(cell.value for cell in seeds.column("Avg").values()))
    spread = {name: cell.value for name, cell in table.row("Std").cells.items()}
    widest = max(spread, key=spread.__getitem__)
    margin = float(margin_over_next("ViT-B/32"))
    freedom = len(seeds.rows) - 1
    low, high = of_average * (freedom / chi2.ppf([0.975, 0.025], freedom)) ** 0.5
    confirmed = of_average <= margin / 10
    return Finding(
        Verdict.CONFIRMED if confirmed else Verdict.REFUTED,
        found=f"{of_average:.3f} points in the average and {spread[widest]} in {widest}"
        f", the widest, beside a lead of {margin:.2f} over the next method",
        uncertainty=f"with three seeds, 95 %: between {low:.2f} and {high:.2f} points; "
        "that low means a tenth of the lead is our threshold",
        how=(How.ARITHMETIC,),
        truth="" if confirmed else "The deviation is comparable with the lead.",
        numbers={"std_of_average": of_average, "lead": margin},
    )


def _row(*labels: str) -> Row:
    return printed_table(1).row(*labels)


def _merging(backbone: str) -> Table:
    return printed_table(1).of(backbone).where(lambda row: row.labels[-1] in MERGING)


def _worst_task_margin(table: Table) -> Decimal:
    worst = {row.labels[-1]: min(row.accuracies()) for row in table.rows}
    return worst.pop("M-TIES") - max(worst.values())


def _rounding_of_variance() -> Decimal:
    """First-order bound, 2 * half unit * mean |cell - mean| + half a printed unit."""
    half = Decimal("0.005")
    mean_deviation = max(
        pvariance(_row(*labels).accuracies()).sqrt() for labels in quoted_variances()
    )
    return 2 * half * mean_deviation + half


def _std_matches(spread: Spread) -> int:
    """Columns of Table 3 whose Std is the spread of the seeds, up to rounding.

    Moving each of n cells by h moves a standard deviation by at most
    h * sqrt(n / (n - 1)) = 1.23 h for n = 3.
    """
    table = printed_table(3)
    seeds = table.where(lambda row: row.name != "Std")
    printed = table.row("Std").with_average()
    tolerance = Decimal("0.0005") * (1 + Decimal("1.23"))
    return sum(
        abs(printed[name].value - spread(c.value for c in seeds.column(name).values()))
        <= tolerance
        for name in table.columns
    )
