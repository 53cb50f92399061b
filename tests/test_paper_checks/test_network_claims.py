"""Claims that run networks; the embedded one is barely trained here, to be quick."""

import numpy as np
import pytest
import torch
from torch import nn

from mloss.digits import PREDICTORS, TASKS, MergeTable, PairStudy, load_digits_models
from mloss.digits.training import Recipe
from paper_checks.claims import (
    CLAIMS,
    correlated_parameters,
    costs,
    definitions,
    guided_pruning,
    predicting_merges,
    sources_of_the_gap,
)
from paper_checks.record import Verdict

QUICK = Recipe(pretraining_steps=20, fine_tuning_steps=10, learning_rates=(2e-3,))
ALL_LAYERS = set(range(1, costs.LAYERS + 1))


@pytest.fixture(scope="module")
def quick_models():
    return load_digits_models(seed=0, recipe=QUICK)


@pytest.fixture
def quick(monkeypatch, quick_models):
    for module in (
        correlated_parameters,
        guided_pruning,
        predicting_merges,
        sources_of_the_gap,
    ):
        monkeypatch.setattr(module, "load_digits_models", lambda **_: quick_models)
    return quick_models


def pairs(gap, **predictors):
    """A study of all pairs of eight models."""
    members = np.array([(i, j) for i in range(8) for j in range(i + 1, 8)])
    columns = {name: np.asarray(predictors.get(name, gap)) for name in PREDICTORS}
    return PairStudy(
        names=tuple(f"{task.name}@0.002" for task in TASKS),
        members=members,
        gap=np.asarray(gap),
        gap_stderr=np.zeros(len(members)),
        predictors=columns,
        samples=1,
    )


def table(advantage, *, images):
    """Merges of which M-TIES alone is also right on a share of the others' errors."""
    rng = np.random.default_rng(0)
    even = rng.random((8, images)) < 0.5
    better = even | (rng.random((8, images)) < advantage)
    controls = ["ties", "ties_matched", "uniform_rate", "reversed_ranks"]
    controls += ["random_ranks_1", "random_ranks_2"]
    correct = {"m_ties": better, "m_ties_rescaled": better}
    correct |= {
        f"{name}{tail}": even for name in controls for tail in ("", "_rescaled")
    }
    return MergeTable(
        learning_rate=1.0,
        density=0.2,
        spread=0.1,
        tasks=tuple("abcdefgh"),
        correct=correct,
        scale=dict.fromkeys(correct, 1.0),
        gap={},
        gap_stderr={},
    )


@pytest.mark.parametrize(
    "name",
    [
        "remark-2",
        "normalised-layer-scale",
        "normalised-node-scale",
        "cost-of-one-layer",
        "cost-of-all-layers",
        "few-layer-cost",
    ],
)
def test_a_healthy_run_gives_the_recorded_verdict(name):
    (claim,) = CLAIMS.select([name])
    assert claim.examine(seed=0).as_recorded


def test_remark_2_notices_another_norm(monkeypatch):
    def mean_instead(h, activation):
        return definitions.node_mloss(h, activation).mean(-1)

    monkeypatch.setattr(definitions, "layer_mloss", mean_instead)
    assert definitions.remark_2(seed=0).verdict == Verdict.REFUTED


def test_lcp_is_the_row_and_its_bias(quick):
    found = correlated_parameters.lcp_of_a_linear_layer(seed=0)
    assert found.verdict == Verdict.CONFIRMED
    shown = quick.unlabelled()[: correlated_parameters.IMAGES]
    assert found.numbers["zero_inputs"] == (shown == 0).double().mean().item()


def test_a_layer_that_ends_in_an_activation_has_another_lcp(quick, monkeypatch):
    def without_row(_seed):
        stem = quick.encoder().stem
        return nn.Sequential(nn.Flatten(), stem, nn.GELU())

    monkeypatch.setattr(correlated_parameters, "_stem", without_row)
    found = correlated_parameters.lcp_of_a_linear_layer(seed=0)
    assert found.verdict == Verdict.REFUTED


@pytest.mark.usefixtures("quick")
def test_deeper_derivatives_depend_on_earlier_parameters():
    found = correlated_parameters.lcp_determined_by_input_only(seed=0)
    assert found.verdict == Verdict.CORRECTED
    assert found.numbers == {"constant_in_row": 0, "constant": 1}


@pytest.mark.parametrize("layer", [1, 5, costs.LAYERS])
def test_passes_are_counted_as_the_formulas_say(layer):
    merged, sources = costs._networks()
    with costs.counted(merged, *sources) as shared:
        costs.shared_input(merged, sources, layer)
    with costs.counted(*sources) as alone:
        costs.every_model_alone(sources, layer)
    assert shared.layers == layer - 1 + costs.SOURCES
    assert alone.layers == layer * costs.SOURCES


def test_kept_hidden_states_cost_q_plus_one_passes_a_layer():
    merged, sources = costs._networks()
    with costs.counted(merged, *sources) as count:
        costs.all_layers_shared(merged, sources, ALL_LAYERS)
    assert count.layers == (costs.SOURCES + 1) * costs.LAYERS - 1


def test_nothing_is_counted_after_the_block():
    network = costs._network()
    with costs.counted(network) as count:
        costs.every_model_alone([network], 1)
    costs.every_model_alone([network], 1)
    assert count.layers == 1


def test_a_linear_network_has_a_gap_of_second_order_and_no_mloss():
    gap, mloss, growth = sources_of_the_gap.linear_network(0)
    assert mloss == 0
    assert gap > 1e-3
    # (2 sigma)^2 / sigma^2, less the growth of the ensemble's own output.
    assert 3.5 < growth <= 4


def test_tangents_leave_the_merge_as_it_is_and_go_with_the_block(quick):
    model, images = quick.encoder(), quick.unlabelled()
    before = model(images).detach()
    kinds = (nn.GELU, nn.LayerNorm)
    with (
        sources_of_the_gap.tangents(model, quick.base, images, kinds=kinds),
        torch.no_grad(),
    ):
        # A normalisation written out rounds otherwise than torch's own.
        torch.testing.assert_close(model(images), before)
    torch.testing.assert_close(model(images).detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [nn.GELU, nn.LayerNorm])
def test_tangents_are_those_of_finite_differences(kind):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    module = kind(6).double() if kind is nn.LayerNorm else kind()
    if kind is nn.LayerNorm:
        module.load_state_dict({"weight": draw(6), "bias": draw(6)})
    centre, direction, step = draw(5, 6), draw(5, 6), 1e-5
    line = sources_of_the_gap.TANGENTS[kind](module, centre)
    with torch.no_grad():
        ahead, behind = (module(centre + sign * step * direction) for sign in (1, -1))
        # Central differences err by step^2 and by rounding over step, both near 1e-10.
        torch.testing.assert_close(
            line(centre + direction) - line(centre),
            (ahead - behind) / (2 * step),
            rtol=1e-7,
            atol=1e-8,
        )
        torch.testing.assert_close(line(centre), module(centre))


def test_parts_of_the_gap_are_fractions(quick):
    (left,) = sources_of_the_gap.gaps_left_by_tangents(quick, nn.GELU)
    (part,) = sources_of_the_gap.mloss_parts(quick)
    assert 0 < left < 2
    assert 0 < part < 1


@pytest.mark.parametrize(
    ("left", "verdict"),
    [
        ([0.1, 0.2], Verdict.CONFIRMED),
        ([0.1, 0.6], Verdict.CORRECTED),
        ([0.8, 0.9], Verdict.CORRECTED),
    ],
)
@pytest.mark.usefixtures("quick")
def test_activations_are_judged_by_the_gap_that_their_tangents_leave(
    monkeypatch, left, verdict
):
    def leaving(_, *kinds):
        return left if kinds == (nn.GELU,) else [0.3, 0.3]

    monkeypatch.setattr(sources_of_the_gap, "gaps_left_by_tangents", leaving)
    found = sources_of_the_gap.gap_arises_from_activations(seed=0)
    assert found.verdict == verdict
    assert found.numbers["left_without_activations"] == left


@pytest.mark.parametrize(
    ("predicted", "verdict"),
    [
        (np.arange(1.0, 29), Verdict.CORRECTED),
        (np.arange(28.0, 0, -1), Verdict.REFUTED),
        (
            np.random.default_rng(1).random(28) + np.arange(28) / 40,
            "not checkable here",
        ),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_criterion_is_judged_by_its_interval(monkeypatch, predicted, verdict):
    # The distance between the weights orders these pairs perfectly.
    study = pairs(np.arange(1.0, 29), layer_mloss_at_merge=predicted)
    monkeypatch.setattr(predicting_merges, "pair_study", lambda _: study)
    found = predicting_merges.mloss_quantifies_compatibility(seed=0)
    assert found.verdict == verdict


@pytest.mark.usefixtures("quick")
def test_a_criterion_that_beats_the_distance_is_confirmed(monkeypatch):
    backwards = np.arange(28.0, 0, -1)
    study = pairs(np.arange(1.0, 29), weight_distance=backwards)
    monkeypatch.setattr(predicting_merges, "pair_study", lambda _: study)
    found = predicting_merges.mloss_quantifies_compatibility(seed=0)
    assert found.verdict == Verdict.CONFIRMED


@pytest.mark.usefixtures("quick")
def test_a_lead_over_the_distance_is_paired(monkeypatch):
    # Of one order with the distance, M-Loss has no lead in any draw, whatever the gap.
    rng = np.random.default_rng(0)
    distance = np.arange(28) + 6 * rng.random(28)
    study = pairs(
        np.arange(1.0, 29), layer_mloss_at_merge=distance**3, weight_distance=distance
    )
    monkeypatch.setattr(predicting_merges, "pair_study", lambda _: study)
    found = predicting_merges.mloss_quantifies_compatibility(seed=0)
    assert found.verdict == Verdict.CORRECTED
    assert found.numbers["mloss"] < 1
    assert found.numbers["lead_low"] == found.numbers["lead_high"] == 0


@pytest.mark.parametrize(
    ("carried", "verdict"),
    [
        ([0.6, 0.9], Verdict.CONFIRMED),
        ([0.4, 0.9], Verdict.REFUTED),
        ([0.1, 0.2], Verdict.REFUTED),
    ],
)
@pytest.mark.usefixtures("quick")
def test_accumulation_is_judged_by_what_is_carried_to_the_output(
    monkeypatch, carried, verdict
):
    # The plain sum is all of the gap here, and decides nothing.
    gap = np.arange(1.0, 29)
    monkeypatch.setattr(sources_of_the_gap, "pair_study", lambda _: pairs(gap))
    monkeypatch.setattr(sources_of_the_gap, "mloss_parts", lambda _: carried)
    found = sources_of_the_gap.gap_accumulates_layer_mloss(seed=0)
    assert found.verdict == verdict
    assert found.numbers["summed_ratio"] == pytest.approx(1)


@pytest.mark.parametrize(
    "check",
    [
        guided_pruning.m_ties_outperforms_ties,
        guided_pruning.mloss_identifies_parameters,
    ],
)
@pytest.mark.usefixtures("quick")
def test_the_advantage_of_m_ties_is_measured_and_not_judged(monkeypatch, check):
    merges = table(0.5, images=400)
    monkeypatch.setattr(guided_pruning, "merge_table", lambda *_, **__: merges)
    found = check(seed=0)
    assert found.verdict == Verdict.NOT_CHECKABLE
    gained = 100 * (merges.correct["m_ties"].mean() - merges.correct["ties"].mean())
    assert f"{gained:+.2f}" in found.found


@pytest.mark.slow
# Nested forward differentiation loads a table of torch's that warns of itself.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("claim", list(CLAIMS), ids=lambda claim: claim.id)
def test_every_recorded_verdict_is_reproduced(claim):
    assert claim.examine(seed=0).as_recorded
