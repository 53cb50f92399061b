import numpy as np
import pytest
import torch
from quadratic_pool import inputs, models, two_layers
from small_transformers import bert, near, small, tokens
from torch import nn

from mloss import gap
from mloss.curvature import gap_pool
from mloss.merging import average

# Pairs are kept in float32, and ten of them are added up.
CLOSE = {"rel": 16 * torch.finfo(torch.float32).eps, "abs": 0}
METHODS = ("measured", "forward", "differences")


def measured(model, sources, data, weights, *, ensemble=None):
    merged = average(sources[0], sources, weights=weights)
    ensemble = weights if ensemble is None else ensemble
    return gap(merged, sources, data, model=model, weights=ensemble).mean


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("weights", "ensemble"),
    [
        ([0.2] * 5, None),
        ([0, 0.5, 0, 0.5, 0], None),
        ([0.1, 0.2, 0.3, 0.4, 0], None),
        ([0.1, 0.2, 0.3, 0.4, 0], [0.25, 0.25, 0.25, 0.25, 0]),
        ([0, 0, 1, 0, 0], [0, 0.5, 0.5, 0, 0]),
    ],
)
def test_exact_where_the_output_is_quadratic(weights, ensemble, method, tmp_path):
    model, sources, data = two_layers(), models(5), inputs()
    pool = gap_pool(model, sources, data=data, directory=tmp_path, method=method)
    found = pool.predicted_gap(weights, ensemble=ensemble)
    expected = measured(model, sources, data, weights, ensemble=ensemble)
    assert found == pytest.approx(expected, **CLOSE)


def test_one_model_has_no_gap(tmp_path):
    pool = gap_pool(two_layers(), models(3), data=inputs(), directory=tmp_path)
    assert pool.predicted_gap([0, 1, 0]) == 0


def test_measured_pairs_are_exact_in_any_network(tmp_path):
    """Padded batches of two lengths, in a network of every degree."""
    model = small(bert)
    sources = near(model.state_dict(), q=3, step=0.1)
    data = [tokens((5, 3)), tokens((4, 4, 2))]
    pool = gap_pool(model, sources, data=data, directory=tmp_path)
    assert pool.samples == 5
    for weights in ([0.5, 0.5, 0], [0, 0.5, 0.5]):
        expected = measured(model, sources, data, weights)
        assert pool.predicted_gap(weights) == pytest.approx(expected, **CLOSE)


def test_among_keeps_the_predictions(tmp_path):
    pool = gap_pool(two_layers(), models(5), data=inputs(), directory=tmp_path)
    within = pool.among([4, 1, 2])
    whole = pool.predicted_gap([0, 0.2, 0.3, 0, 0.5], ensemble=[0, 0.5, 0.5, 0, 0])
    part = within.predicted_gap([0.5, 0.2, 0.3], ensemble=[0, 0.5, 0.5])
    # Outputs are taken from another first model.
    assert part == pytest.approx(whole, **CLOSE)
    with pytest.raises(ValueError, match="models 0 to 4, got 5"):
        pool.among([1, 5])
    with pytest.raises(ValueError, match="names a model twice"):
        pool.among([1, 1])


class Counted(nn.Module):
    """Two linear layers that count their forward passes."""

    def __init__(self):
        super().__init__()
        self.layers, self.passes = two_layers(), 0

    def forward(self, x):
        self.passes += 1
        return self.layers(x)


def counted_models(q):
    return [{f"layers.{k}": v for k, v in state.items()} for state in models(q)]


def test_goes_on_where_it_stopped(tmp_path):
    model, sources, data = Counted(), counted_models(4), inputs()

    def stop(finished, _):
        if finished == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gap_pool(model, sources, data=data, directory=tmp_path, progress=stop)
    assert not list(tmp_path.glob("*.unfinished"))
    before = model.passes
    seen = []
    pool = gap_pool(
        model,
        sources,
        data=data,
        directory=tmp_path,
        progress=lambda *counts: seen.append(counts),
    )
    assert seen == [(n, 6) for n in range(1, 7)]
    # The last 4 pairs, and one pass for the number of outputs.
    assert model.passes - before == 5
    fresh = gap_pool(model, sources, data=data, directory=tmp_path / "fresh")
    np.testing.assert_array_equal(pool.gram, fresh.gram)


def test_models_may_be_added_and_reordered(tmp_path):
    model, sources, data = Counted(), counted_models(4), inputs()
    gap_pool(model, sources[:3], data=data, directory=tmp_path)
    before = model.passes
    pool = gap_pool(model, sources[::-1], data=data, directory=tmp_path)
    assert model.passes - before == 1 + 3  # the new model and its pairs
    weights = [0.1, 0.2, 0.3, 0.4]
    expected = measured(model, sources[::-1], data, weights)
    assert pool.predicted_gap(weights) == pytest.approx(expected, **CLOSE)


def test_a_damaged_file_is_computed_again(tmp_path):
    def run():
        return gap_pool(two_layers(), models(3), data=inputs(), directory=tmp_path)

    before = run().gram
    for path in tmp_path.glob("pair-*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(run().gram, before)


def test_processes_find_the_same(tmp_path):
    model, sources, data = two_layers(), models(4), inputs()
    alone = gap_pool(model, sources, data=data, directory=tmp_path / "1")
    shared = gap_pool(model, sources, data=data, directory=tmp_path / "2", jobs=2)
    np.testing.assert_array_equal(alone.gram, shared.gram)


def test_equal_models_have_no_gap(tmp_path):
    (state,) = models(1)
    for method in METHODS:
        pool = gap_pool(
            two_layers(),
            [state, dict(state)],
            data=inputs(),
            directory=tmp_path / method,
            method=method,
        )
        assert pool.predicted_gap([0.5, 0.5]) == 0


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"data": inputs() + 1}, "data"),
        ({"method": "differences"}, "method and centre"),
        (
            {"model": torch.nn.Sequential(*two_layers(), torch.nn.Tanh())},
            "architecture",
        ),
    ],
)
def test_a_directory_of_another_setting_is_refused(change, differs, tmp_path):
    sources = models(3)
    given = {"model": two_layers(), "data": inputs(), "directory": tmp_path}
    gap_pool(sources=sources, **given)
    with pytest.raises(ValueError, match=f"results for another {differs}: give an"):
        gap_pool(sources=sources, **given | change)


def test_refusals(tmp_path):
    model, sources, data = two_layers(), models(2), inputs()
    with pytest.raises(ValueError, match="at least two models, got 1"):
        gap_pool(model, sources[:1], data=data, directory=tmp_path)
    with pytest.raises(ValueError, match="'differences', got 'base'"):
        gap_pool(model, sources, data=data, directory=tmp_path, method="base")
    other = {**sources[0], "0.bias": torch.zeros(2, dtype=torch.float64)}
    with pytest.raises(ValueError, match=r"'0.bias' has shape .* in source 1"):
        gap_pool(model, [sources[0], other], data=data, directory=tmp_path)
    with pytest.raises(ValueError, match="an infinity or a NaN"):
        gap_pool(model, sources, data=data * 1e308, directory=tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings.json is damaged"):
        gap_pool(model, sources, data=data, directory=tmp_path)
