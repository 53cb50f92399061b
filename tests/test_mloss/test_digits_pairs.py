import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.func import functional_call

from mloss import node_mloss
from mloss.correlation import rank_correlation
from mloss.digits import PREDICTORS, Recipe, load_digits_models, pair_study, pairs
from mloss.digits.tabulated import tabulated_mloss
from theory import expected_mloss, paper_approximation

EPS = np.finfo(float).eps
RECIPE = Recipe(pretraining_steps=60, fine_tuning_steps=20, learning_rates=(2e-3,))


@pytest.fixture(scope="module")
def few(digits):  # noqa: ARG001  # for its cache
    return load_digits_models(recipe=RECIPE)


@pytest.fixture(scope="module")
def study(few):
    return pair_study(few)


def test_every_pair_has_a_finite_row(few, study):
    names = [tuned.name for tuned in few.fine_tunes]
    assert list(study.names) == names
    assert len({frozenset(pair) for pair in study.members.tolist()}) == 28
    assert set(study.predictors) == set(PREDICTORS)
    for values in (study.gap, study.gap_stderr, *study.predictors.values()):
        assert values.shape == (28,)
        assert np.isfinite(values).all()
        assert (values > 0).all()


def naive_row(models, first, second):
    """Gap, layer M-Loss, k and sigma of one pair, written out for this network."""
    model, images = models.encoder(), models.unlabelled()
    merged = {key: (first[key] + second[key]) / 2 for key in first}

    def hidden(state, layer, x):
        weight, bias = state[f"{layer}.fc1.weight"], state[f"{layer}.fc1.bias"]
        return x @ weight.T + bias

    def site_inputs(state):
        x = images.flatten(1) @ state["stem.weight"].T + state["stem.bias"]
        for block in range(models.recipe.blocks):
            name = f"blocks.{block}"
            scale, shift = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
            normed = torch.nn.functional.layer_norm(x, x.shape[1:], scale, shift)
            yield name, normed
            update = torch.nn.functional.gelu(hidden(state, name, normed))
            weight, bias = state[f"{name}.fc2.weight"], state[f"{name}.fc2.bias"]
            x = x + update @ weight.T + bias

    def summed_mloss(carrier):
        total, scales = 0.0, []
        for name, x in site_inputs(carrier):
            a, b = hidden(first, name, x), hidden(second, name, x)
            loss = node_mloss(torch.stack([a, b]), "gelu")
            total += loss.norm(dim=1).mean().item()
            k = (3 * hidden(models.base, name, x).square().mean(0)).sqrt()
            scales.append((k, ((a - b).square().mean(0) / 2).sqrt()))
        return total, scales

    with torch.no_grad():
        outputs = [functional_call(model, s, (images,)) for s in (first, second)]
        ours = functional_call(model, merged, (images,)) - sum(outputs) / 2
        at_merge, scales = summed_mloss(merged)
        at_base, _ = summed_mloss(models.base)
    return ours.norm(dim=1).mean().item(), at_merge, at_base, scales


def test_a_row_is_what_its_columns_say(few, study):
    row = 9
    first, second = (few.fine_tunes[i].state for i in study.members[row])
    distance, at_merge, at_base, scales = naive_row(few, first, second)
    foretold = {name: values[row] for name, values in study.predictors.items()}
    # Outputs of a few units through some 10 layers of 64 to 128 terms each; the gap
    # and the losses are a hundredth of that and more.
    close = {"rel": 1e6 * EPS}
    assert study.gap[row] == pytest.approx(distance, **close)
    assert foretold["layer_mloss_at_merge"] == pytest.approx(at_merge, **close)
    assert foretold["layer_mloss_at_base"] == pytest.approx(at_base, **close)
    apart = np.sqrt(sum((first[k] - second[k]).square().sum().item() for k in first))
    assert foretold["weight_distance"] == pytest.approx(apart, **close)
    for name, formula, accuracy in (
        ("printed", paper_approximation, 1e6 * EPS),
        ("theory", expected_mloss, 5e-3),
    ):
        by_site = [np.linalg.norm(formula("gelu", k, sigma)) for k, sigma in scales]
        assert foretold[name] == pytest.approx(sum(by_site), rel=accuracy)


def test_rows_among_some_fine_tunes(study):
    assert np.array_equal(study.among(study.names).gap, study.gap)
    part = study.among([study.names[i] for i in (1, 4, 6)])
    assert part.members.tolist() == [[1, 4], [1, 6], [4, 6]]
    rows = [study.members.tolist().index(pair) for pair in part.members.tolist()]
    assert np.array_equal(part.gap, study.gap[rows])
    for name, values in part.predictors.items():
        assert np.array_equal(values, study.predictors[name][rows])
    with pytest.raises(ValueError, match=r"got \['nobody'\]"):
        study.among([study.names[0], "nobody"])
    with pytest.raises(ValueError, match="at least two"):
        study.among(study.names[:1])


def test_a_second_study_is_read_back(few, study, monkeypatch):
    monkeypatch.setattr(pairs, "_measured", None)
    again = pair_study(few)
    assert np.array_equal(again.gap, study.gap)
    for name in PREDICTORS:
        assert np.array_equal(again.predictors[name], study.predictors[name])


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_have_a_rank_correlation_with_the_gap(study, name):
    rng = np.random.default_rng(0)
    found = rank_correlation(
        study.predictors[name], study.gap, members=study.members, rng=rng, draws=50
    )
    assert -1 <= found.low <= found.high <= 1


@pytest.mark.parametrize(
    ("k_range", "sigma_range"),
    [((0.5, 20), (1e-3, 3)), ((1, 3), (0.01, 0.1)), ((2, 2), (0.1, 0.1))],
)
def test_the_table_is_within_half_a_percent(k_range, sigma_range):
    rng = np.random.default_rng(0)
    k, sigma = (
        np.exp(rng.uniform(*np.log(bounds), size=50))
        for bounds in (k_range, sigma_range)
    )
    exact = expected_mloss("gelu", k, sigma)
    assert_allclose(tabulated_mloss("gelu", k, sigma), exact, rtol=5e-3, atol=0)
