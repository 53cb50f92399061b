import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mloss import gap, score
from mloss.digits import TASKS, merge_table, merges, node_map
from mloss.digits.candidates import CONTROLS, merge_candidates
from mloss.digits.examination import STEP_SCALES
from mloss.digits.merges import REFERENCES
from mloss.inference import forward
from mloss.merging import task_arithmetic

RATE = 5e-4


@pytest.fixture(scope="module")
def candidates(digits):
    return merge_candidates(
        digits,
        learning_rate=RATE,
        density=0.3,
        spread=0.2,
        random_draws=2,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.fixture(scope="module")
def table(digits):
    return merge_table(digits, learning_rate=RATE, random_draws=2)


def kept(digits, state, layer="blocks.1.fc1"):
    """Entries of each node of a layer that the merge moved: its row and its bias."""
    weight, bias = f"{layer}.weight", f"{layer}.bias"
    moved = (state[weight] != digits.base[weight]).sum(dim=1)
    return moved + (state[bias] != digits.base[bias])


def test_controls_differ_from_m_ties_in_the_rows_alone(candidates):
    ours = candidates["m_ties"]
    row_wise = ["uniform_rate", "reversed_ranks", "random_ranks_1", "random_ranks_2"]
    for name in row_wise:
        for key, value in candidates[name].items():
            assert torch.equal(value, ours[key]) == ("fc1" not in key), (name, key)


def test_the_lowest_mloss_keeps_most_and_reversed_least(digits, candidates):
    # The first site sees the same input in every row-wise merge: no site comes before.
    layer = "blocks.0.fc1"
    experts = [expert.state for expert in digits.experts(RATE)]
    before = candidates["uniform_rate"]
    data, model = digits.unlabelled(), digits.encoder()
    scored = score(before, experts, data, model=model, inputs="base")
    (mloss,) = (site.node for site in scored.sites if site.layer_name == layer)
    low, high = mloss.argsort()[:32], mloss.argsort()[-32:]
    ours = kept(digits, candidates["m_ties"], layer).double()
    reversed_ = kept(digits, candidates["reversed_ranks"], layer).double()
    assert ours[low].mean() > ours[high].mean()
    assert reversed_[low].mean() < reversed_[high].mean()


def test_ties_matched_is_ties_but_for_the_sites(digits, candidates):
    plain, matched = candidates["ties_weighted_sum"], candidates["ties_matched"]
    for key in plain:
        assert torch.equal(plain[key], matched[key]) == ("fc1" not in key), key
    assert kept(digits, matched).sum() < kept(digits, plain).sum()


def test_every_method_answers_every_test_image(table):
    assert table.tasks == tuple(task.name for task in TASKS)
    assert set(table.correct) == set(REFERENCES) | set(table.scale)
    assert set(table.gap) == set(table.gap_stderr) == set(table.scale)
    for right in table.correct.values():
        assert right.shape == (8, 600)
        assert right.dtype == bool
    assert all(np.isfinite(value) for value in table.gap.values())


def test_accuracy_and_gap_are_those_of_the_merge(digits, table):
    model, rate = digits.encoder(), RATE
    experts = [expert.state for expert in digits.experts(rate)]
    scale = table.scale["average_rescaled"]
    merged = task_arithmetic(digits.base, experts, scale=scale)
    split = digits.splits["test"]
    for task, accuracy in zip(TASKS, table.accuracy("average_rescaled"), strict=True):
        head = digits.heads[task.name]
        with torch.no_grad():
            features = forward(model, merged, split.inputs(task))
        chosen = (features @ head.weight.T + head.bias).argmax(dim=1)
        assert accuracy == (chosen == split.labels(task)).double().mean().item()
    distance = gap(merged, experts, digits.unlabelled(), model=model)
    # The rescaled average goes the long way round: a few roundings of the states.
    assert table.gap["average_rescaled"] == pytest.approx(distance.mean, rel=1e-10)


def test_experts_are_best_and_the_scale_is_one_of_those_tried(table):
    best = table.mean_accuracy("experts")
    for method in table.correct:
        lead = table.advantage("experts", over=method)
        assert method == "experts" or lead.value > 5 * lead.stderr
    assert best.stderr > 0
    for method, scale in table.scale.items():
        assert scale in STEP_SCALES if method.endswith("_rescaled") else scale == 1


def test_controls_step_as_far_as_m_ties(digits, tmp_path, monkeypatch):
    # A scale that differs for every merge it is asked about.
    scales = iter(np.linspace(1, 2, 20))
    monkeypatch.setattr(merges, "best_step_scale", lambda *_, **__: next(scales))
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path))
    found = merge_table(digits, learning_rate=RATE, random_draws=1).scale
    same = {found[f"{control}_rescaled"] for control in (*CONTROLS[:2], "m_ties")}
    assert same == {found["random_ranks_1_rescaled"]}
    others = ("average", "ties", "ties_weighted_sum", "ties_matched", "m_ties")
    assert len({found[f"{method}_rescaled"] for method in others}) == len(others)


def test_errors_are_paired_by_image(table):
    none = table.advantage("m_ties", over="m_ties")
    assert (none.value, none.stderr) == (0, 0)
    ours, theirs = table.mean_accuracy("m_ties"), table.mean_accuracy("uniform_rate")
    lead = table.advantage("m_ties", over="uniform_rate")
    assert lead.value == pytest.approx(ours.value - theirs.value, abs=1e-14, rel=0)
    assert lead.stderr < np.hypot(ours.stderr, theirs.stderr)


def test_random_draws_are_those_asked_for(table):
    for rescaled, ending in ((False, ""), (True, "_rescaled")):
        expected = [
            table.mean_accuracy(f"random_ranks_{draw}{ending}").value for draw in (1, 2)
        ]
        assert table.random_draws(rescaled=rescaled).tolist() == expected


def test_a_rate_or_density_that_cannot_be_is_refused(digits):
    with pytest.raises(ValueError, match="learning_rate"):
        merge_table(digits, learning_rate=0.5)
    with pytest.raises(ValueError, match="spread"):
        merge_table(digits, learning_rate=RATE, density=0.1, spread=0.2)


def test_node_map_is_the_score_of_the_experts(digits):
    experts = [expert.state for expert in digits.experts(RATE)]
    scored = score(digits.base, experts, digits.unlabelled(), model=digits.encoder())
    found = node_map(digits, learning_rate=RATE)
    assert found.layers == ("blocks.0.fc1", "blocks.1.fc1", "blocks.2.fc1")
    assert found.mloss.shape == found.stderr.shape == (3, 128)
    for row, site in enumerate(scored.sites):
        assert_close(torch.from_numpy(found.mloss[row]), site.node, rtol=0, atol=0)
