"""Does M-Loss tell good merges from bad ones? Pairs of the embedded network."""

import numpy as np

from mloss.correlation import Interval, rank_correlation
from mloss.digits import PairStudy, load_digits_models, pair_study
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim

# Above this rank correlation a criterion orders two pairs in three rightly.
ORDERS = 0.5


@claim(
    "mloss-quantifies-compatibility",
    where="Abstract, Section 1",
    states="M-Loss quantifies the compatibility of merging source models",
    recorded="confirmed",
)
def mloss_quantifies_compatibility(*, seed: int) -> Finding:
    """Correlate summed layer M-Loss with the measured merged-vs-ensemble gap."""
    study = pair_study(load_digits_models(seed=seed))
    mloss = _correlation(study, "layer_mloss_at_merge", seed)
    distance = _correlation(study, "weight_distance", seed)
    second_order = _correlation(study, "second_order", seed)
    return _orders(
        study,
        mloss,
        found=f"rank correlation {mloss.value:.2f} with the measured gap to the "
        f"ensemble; the distance between the weights has {distance.value:.2f}, the "
        f"second-order functional of the weights {second_order.value:.2f}",
        truth="M-Loss does not order merges by their gap.",
        numbers={
            "mloss": mloss.value,
            "weight_distance": distance.value,
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


def _orders(
    study: PairStudy,
    correlation: Interval,
    *,
    found: str,
    truth: str,
    numbers: dict[str, float],
) -> Finding:
    """Confirm above ORDERS, refute below it, leave open where the interval spans it."""
    if correlation.low <= ORDERS <= correlation.high:
        reason = f"the interval of the rank correlation spans {ORDERS}"
        return Finding.not_checkable(reason, found=found)
    orders = correlation.low > ORDERS
    return Finding(
        Verdict.CONFIRMED if orders else Verdict.REFUTED,
        found=found,
        uncertainty=f"95 %: {correlation.low:.2f} to {correlation.high:.2f}, "
        f"resampling the models of {len(study.gap)} pairs; a small gap is not yet a "
        "high accuracy",
        how=(How.MEASURED,),
        truth="" if orders else truth,
        numbers={**numbers, "low": correlation.low, "high": correlation.high},
    )
