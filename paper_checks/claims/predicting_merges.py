"""Does M-Loss tell good merges from bad ones? Pairs of the embedded network."""

import numpy as np

from mloss.correlation import Interval, rank_correlation, rank_correlation_lead
from mloss.digits import DigitsModels, PairStudy, load_digits_models, pair_study
from paper_checks.record import Finding, How, Number, Verdict
from paper_checks.registry import claim

# Above this rank correlation a criterion orders two pairs in three rightly.
ORDERS = 0.5
ROUNDING = 1e-9  # equal orders have equal correlations, up to this


@claim(
    "mloss-quantifies-compatibility",
    where="Abstract, Section 1",
    states="M-Loss quantifies the compatibility of merging source models",
    recorded="corrected",
)
def mloss_quantifies_compatibility(*, seed: int) -> Finding:
    """Correlate summed layer M-Loss with the measured merged-vs-ensemble gap.

    Confirmed asks more than an order: a better one than the weights' distance gives,
    by an interval that resamples models once for both.
    """
    models = load_digits_models(seed=seed)
    study = pair_study(models)
    mloss = _correlation(study, "layer_mloss_at_merge", seed)
    within = _within_rates(models, study, "layer_mloss_at_merge", seed)
    distance = _correlation(study, "weight_distance", seed)
    second_order = _correlation(study, "second_order", seed)
    lead = rank_correlation_lead(
        study.predictors["layer_mloss_at_merge"],
        study.gap,
        rival=study.predictors["weight_distance"],
        members=study.members,
        rng=np.random.default_rng(seed),
    )
    plain = (
        ""
        if lead.low > ROUNDING
        else "M-Loss orders merges mostly through the length of the steps (among steps "
        f"alike {_listed(within)}), and not measurably better than the plain distance "
        "between the weights does."
    )
    return _orders(
        study,
        mloss,
        corrected=plain,
        found=f"rank correlation {mloss.value:.2f} with the measured gap to the "
        f"ensemble, but {_listed(within)} among fine-tunes of one learning rate, whose "
        f"steps are alike; over all pairs the distance between the weights has "
        f"{distance.value:.2f} (M-Loss ahead by {lead.value:+.3f}, 95 %: "
        f"{lead.low:+.3f} to {lead.high:+.3f}, paired), the second-order functional "
        f"{second_order.value:.2f}",
        truth="M-Loss does not order merges by their gap.",
        numbers={
            "mloss": mloss.value,
            "mloss_within_rates": within,
            "weight_distance": distance.value,
            "lead": lead.value,
            "lead_low": lead.low,
            "lead_high": lead.high,
            "second_order": second_order.value,
        },
    )


@claim(
    "similar-parameters-merge-better",
    where="Section 4",
    states="Mergeability is positively correlated with parameter similarity",
    recorded="confirmed",
)
def similar_parameters_merge_better(*, seed: int) -> Finding:
    """Correlate the distance between the weights with the measured gap."""
    study = pair_study(load_digits_models(seed=seed))
    distance = _correlation(study, "weight_distance", seed)
    return _orders(
        study,
        distance,
        found=f"rank correlation {distance.value:.2f} between the distance of two "
        "fine-tunes' weights and the gap of their merge to their ensemble",
        truth="Fine-tunes nearer to each other do not merge with a smaller gap.",
        numbers={"weight_distance": distance.value},
    )


def _correlation(study: PairStudy, predictor: str, seed: int) -> Interval:
    return rank_correlation(
        study.predictors[predictor],
        study.gap,
        members=study.members,
        rng=np.random.default_rng(seed),
    )


def _within_rates(
    models: DigitsModels, study: PairStudy, predictor: str, seed: int
) -> list[float]:
    """Rank correlations among the fine-tunes of each learning rate."""
    return [
        _correlation(
            study.among([tuned.name for tuned in models.experts(rate)]), predictor, seed
        ).value
        for rate in models.recipe.learning_rates
    ]


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _orders(
    study: PairStudy,
    correlation: Interval,
    *,
    found: str,
    truth: str,
    numbers: dict[str, Number],
    corrected: str = "",
) -> Finding:
    """Confirm above ORDERS, refute below it, leave open where the interval spans it.

    What is `corrected` of a criterion that orders, if anything, is the truth.
    """
    if correlation.low <= ORDERS <= correlation.high:
        reason = f"the interval of the rank correlation spans {ORDERS}"
        return Finding.not_checkable(reason, found=found)
    verdict, holds = Verdict.CONFIRMED, ""
    if correlation.high < ORDERS:
        verdict, holds = Verdict.REFUTED, truth
    elif corrected:
        verdict, holds = Verdict.CORRECTED, corrected
    return Finding(
        verdict,
        found=found,
        uncertainty=f"95 %: {correlation.low:.2f} to {correlation.high:.2f}, "
        f"resampling the models of {len(study.gap)} pairs; a small gap is not yet a "
        "high accuracy",
        how=(How.MEASURED,),
        truth=holds,
        numbers={**numbers, "low": correlation.low, "high": correlation.high},
    )
