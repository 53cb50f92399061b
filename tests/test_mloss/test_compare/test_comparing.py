import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mloss.commands.spelt_candidates import spelt
from mloss.compare import agreement, compare, grid
from mloss.digits import TASKS
from mloss.gap import gap
from mloss.inference import evaluating, forward
from mloss.merging import average, dare, merged_lazily, ties

RATE = 5e-4
SAMPLES = 40


@pytest.fixture(scope="module")
def family(digits):
    """Base, sources, model, heads, and images of each task, of the embedded models."""
    images = digits.splits["validation"].images[:SAMPLES]
    experts = digits.experts(RATE)[:3]
    tasks = [next(t for t in TASKS if t.name == expert.task) for expert in experts]
    return (
        digits.base,
        [expert.state for expert in experts],
        digits.encoder(),
        [digits.heads[task.name].logits for task in tasks],
        [task.transform(images) for task in tasks],
    )


def compared(family, **options):
    base, sources, model, heads, data = family
    given = {"model": model, "heads": heads, "task_data": data} | options
    return compare(base, sources, **given)


def test_agreement_is_that_of_the_highest_scores_and_divergence_kl(family):
    _, sources, model, heads, data = family
    other = average(sources[0], sources)
    found = agreement(other, sources[0], data[0], model=model, head=heads[0])
    with evaluating(model):
        each = [forward(model, state, data[0]) for state in (other, sources[0])]
    ours, theirs = map(heads[0], each)
    assert torch.equal(found.agrees, (ours.argmax(1) == theirs.argmax(1)).double())
    p, q = theirs.softmax(1), ours.softmax(1)
    expected = (p * (p / q).log()).sum(1)
    # Logarithms of size up to about 10, in float64.
    torch.testing.assert_close(found.divergence, expected, rtol=0, atol=1e-13)
    assert found.reads == "classes"
    assert 0 < found.rate.low < found.rate.value < found.rate.high < 1


def test_an_expert_agrees_with_itself(family):
    _, sources, model, heads, data = family
    for head in (heads[0], None):
        found = agreement(sources[0], sources[0], data[0], model=model, head=head)
        assert found.rate.value == 1
        # 1 minus the cosine of a vector with itself rounds three times.
        assert found.divergence.max() < 1e-15


def test_without_a_head_neighbours_are_compared(family):
    _, sources, model, _, data = family
    found = agreement(sources[1], sources[0], data[0], model=model)
    with evaluating(model):
        ours, theirs = (forward(model, s, data[0]) for s in (sources[1], sources[0]))
    same = [nearest(ours, i) == nearest(theirs, i) for i in range(SAMPLES)]
    assert found.agrees.tolist() == same
    assert 0 < sum(same) < SAMPLES
    cosines = torch.cosine_similarity(ours, theirs)
    torch.testing.assert_close(found.divergence, 1 - cosines, rtol=0, atol=1e-14)
    assert found.reads == "neighbours"


def nearest(rows, i):
    others = [j for j in range(len(rows)) if j != i]
    return max(others, key=lambda j: torch.cosine_similarity(rows[i], rows[j], dim=0))


def test_neighbours_take_three_samples(family):
    _, sources, model, _, data = family
    with pytest.raises(ValueError, match="at least 3 samples, got 2"):
        agreement(sources[1], sources[0], data[0][:2], model=model)


def test_a_comparison_is_each_agreement_and_gap_on_its_own(family):
    base, sources, model, heads, data = family
    weights = [0.5, 0.25, 0.25]
    found = compared(family, methods=spelt("average,ties:density=0.3"), weights=weights)
    merges = {
        "average": average(base, sources, weights=weights),
        "ties:density=0.3": ties(base, sources, density=0.3, weights=weights),
    }
    assert {one.name for one in found.outcomes} == set(merges)
    for one in found.outcomes:
        merged = merges[one.name]
        for i in range(3):
            alone = agreement(merged, sources[i], data[i], model=model, head=heads[i])
            assert torch.equal(one.agreements[i].agrees, alone.agrees)
            # Both sum a few float64 numbers in the same order.
            torch.testing.assert_close(one.agreements[i].divergence, alone.divergence)
        rates = [each.rate.value for each in one.agreements]
        assert one.agreement.value == pytest.approx(sum(rates) / 3)
        expected = gap(merged, sources, torch.cat(data), model=model, weights=weights)
        assert one.gap.mean == pytest.approx(expected.mean, rel=1e-12)
        assert one.gap.relative == pytest.approx(expected.relative, rel=1e-12)
        assert one.gap.samples == 3 * SAMPLES
        again = one.merged()
        assert all(torch.equal(again[key], merged[key]) for key in merged)


def test_merges_come_best_first_and_ties_by_divergence(family):
    sources = family[1]
    twin = "task_arithmetic:scale=1"
    found = compared(
        family,
        methods=spelt(f"task_arithmetic:scale=0/1/3,average,{twin}"),
        merged={"first expert": sources[0]},
    )
    rates = [round(one.agreement.value, 12) for one in found.outcomes]
    order = [(-r, o.divergence) for r, o in zip(rates, found.outcomes, strict=True)]
    assert order == sorted(order)
    names = [one.name for one in found.outcomes]
    assert set(names) == {
        "average",
        "first expert",
        *(f"task_arithmetic:scale={scale}" for scale in (0.0, 1.0, 3.0)),
    }
    assert found.best is found.outcomes[0]
    assert [lead.over for lead in found.leads] == names[1:]
    expert = next(one for one in found.outcomes if one.candidate is None)
    assert expert.agreements[0].rate.value == 1
    assert torch.equal(expert.merged()["stem.weight"], sources[0]["stem.weight"])
    # The average and task arithmetic at scale 1 are one merge up to rounding.
    one, other = (o for o in found.outcomes if o.name in ("average", f"{twin}.0"))
    assert one.agreement == other.agreement


def test_shared_samples_count_once(family):
    data = family[-1]
    found = compared(family, task_data=data[:1], methods=spelt("average"))
    assert found.samples == SAMPLES
    one = found.best
    means = torch.stack([each.agrees for each in one.agreements]).mean(dim=0)
    assert torch.equal(one.strata[0], means)
    assert one.gap.samples == SAMPLES


def test_a_refused_merge_leaves_the_others(family):
    found = compared(family, methods=[*grid("ties", density=(0.2, 2.0))])
    assert [one.name for one in found.outcomes] == ["ties:density=0.2"]
    assert found.leads == ()
    assert "density must be" in found.refused["ties:density=2.0"]
    with pytest.raises(ValueError, match="no merge could be compared"):
        compared(family, methods=grid("ties", density=(2.0,)))


@pytest.mark.parametrize(
    "error", [torch.linalg.LinAlgError("no inverse\nat all"), TypeError("no inverse")]
)
def test_whatever_stops_a_merge_is_its_reason(family, monkeypatch, error):
    def stopped(*models, method, **options):
        if method == "average":
            raise error
        return merged_lazily(*models, method=method, **options)

    monkeypatch.setattr("mloss.compare.merger.merged_lazily", stopped)
    found = compared(family, methods=spelt("average,ties:density=0.2"))
    assert found.refused == {"average": "no inverse"}


def test_two_merges_of_one_name_are_refused(family):
    methods = spelt("average")
    with pytest.raises(ValueError, match="two merges are called 'average'"):
        compared(family, methods=methods, merged={"average": family[1][0]})


def test_random_merges_start_from_the_seed(family):
    base, sources, *_ = family
    found = compared(family, methods=spelt("dare:density=0.5"), seed=3)
    expected = dare(
        base, sources, density=0.5, generator=torch.Generator().manual_seed(3)
    )
    again = found.best.merged()
    assert all(torch.equal(again[key], expected[key]) for key in expected)


def test_methods_that_look_at_samples_get_them(family):
    found = compared(family, methods=spelt("m_ties:density=0.5"))
    alone = compared(
        family, methods=spelt("m_ties:density=0.5"), data=torch.cat(family[-1])
    )
    assert torch.equal(found.best.strata[0], alone.best.strata[0])


def test_what_was_measured_is_not_measured_again(family, monkeypatch, tmp_path):
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path))
    methods = spelt("average,ties:density=0.3")
    first = compared(family, methods=methods, origin={"models": "these"})
    runs = []
    counted = family[2].register_forward_hook(lambda *_: runs.append(1))
    again = compared(family, methods=methods, origin={"models": "these"})
    assert not runs
    assert [one.agreement for one in again.outcomes] == [
        one.agreement for one in first.outcomes
    ]
    assert [one.gap for one in again.outcomes] == [one.gap for one in first.outcomes]
    compared(family, methods=spelt("average"), origin={"models": "others"})
    # Three sources on three tasks, and the merge on each.
    assert len(runs) == 12
    more = spelt("task_arithmetic:scale=2")
    compared(family, methods=more, origin={"models": "these"})
    assert len(runs) == 15
    counted.remove()


@pytest.mark.parametrize("count", [2, 4])
def test_samples_and_heads_are_counted(family, count):
    *_, heads, data = family
    with pytest.raises(ValueError, match="one for each of the 3 sources"):
        compared(family, task_data=(data * 2)[:count])
    with pytest.raises(ValueError, match="heads must hold one for each of the 3"):
        compared(family, heads=(heads * 2)[:count])


def test_a_tensor_is_no_sequence_of_data(family):
    with pytest.raises(ValueError, match="task_data must be a sequence"):
        compared(family, task_data=family[-1][0])


def test_a_merge_whose_output_is_not_finite_is_refused(family):
    found = compared(family, methods=spelt("average,task_arithmetic:scale=1e300"))
    assert "infinity or a NaN" in found.refused["task_arithmetic:scale=1e+300"]


def test_logits_need_no_head():
    class Named(nn.Module):
        def __init__(self, seed):
            super().__init__()
            generator = torch.Generator().manual_seed(seed)
            self.layer = nn.Linear(4, 3)
            for parameter in self.layer.parameters():
                nn.init.normal_(parameter, generator=generator)

        def forward(self, x):
            return {"logits": self.layer(x)}

    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(5))
    found = compare(
        Named(0), [Named(1), Named(2)], task_data=[x], methods=spelt("average")
    )
    assert found.best.agreements[0].reads == "classes"
    assert found.best.gap.samples == 9


def test_a_single_score_is_no_class(family):
    heads = [lambda rows: rows[:, :1]] * 3
    runs = []
    counted = family[2].register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(ValueError, match="at least 2 of them, got 1 a sample"):
        compared(family, heads=heads, methods=spelt("average"))
    # The three sources ran on three tasks, and no merge did.
    assert len(runs) == 9
    counted.remove()


def test_another_merge_is_measured_as_it_would_be_written(family, tmp_path):
    base, sources, model, heads, data = family
    coarse = {key: value.bfloat16() for key, value in base.items()}
    save_file(coarse, tmp_path / "base.safetensors")
    save_file(sources[0], tmp_path / "wide.safetensors")
    rounded = {key: value.bfloat16() for key, value in sources[0].items()}
    save_file(rounded, tmp_path / "rounded.safetensors")
    found = compare(
        tmp_path / "base.safetensors",
        [tmp_path / "rounded.safetensors"],
        task_data=[data[0].float()],
        model=model,
        heads=heads[:1],
        methods=(),
        merged={"wide": tmp_path / "wide.safetensors"},
    )
    assert found.best.divergence == 0
    assert found.best.gap.mean == 0


def test_nothing_that_is_passed_in_changes(family):
    base, sources, model, *_ = family
    before = {key: value.clone() for key, value in base.items()}
    kept = [{key: value.clone() for key, value in s.items()} for s in sources]
    compared(family, methods=spelt("task_arithmetic:scale=2,m_ties:density=0.5"))
    assert "forward" not in vars(model)
    assert all(torch.equal(base[key], before[key]) for key in before)
    for source, was in zip(sources, kept, strict=True):
        assert all(torch.equal(source[key], was[key]) for key in was)
