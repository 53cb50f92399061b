import json

import numpy as np
import pytest
from scipy.stats import binom

from simulate import Estimate, cells
from simulate.activations import relu
from simulate.cells import FIRST, Cell, finished_cell, round_sizes
from simulate.provenance import versions
from simulate.settings import Settings
from simulate.sweep import sweep

GRID = {"activations": ["relu", "gelu"], "ks": [0.5, 4], "sigmas": [1.0], "qs": [2, 3]}
CELLS = [(a, k, 1.0, q) for a in ("relu", "gelu") for k in (0.5, 4.0) for q in (2, 3)]
WHEN = ["seconds", "finished"]  # the columns that differ between equal sweeps


def small(*, seed=0, **options):
    settings = {"n": 4096, "method": "mc", "workers": 1, **GRID, **options}
    return sweep(
        settings.pop("activations"),
        settings.pop("ks"),
        settings.pop("sigmas"),
        rng=np.random.default_rng(seed),
        **settings,
    )


def cells_of(table):
    columns = table.select(["activation", "k", "sigma", "q"]).to_pylist()
    return [tuple(row.values()) for row in columns]


def numbers(table):
    return table.drop_columns(WHEN).to_pylist()


def test_rows_are_the_product_of_the_axes_each_once():
    assert cells_of(small()) == CELLS
    assert cells_of(small(qs=[2, 3, 2], ks=(0.5, 4, 0.5))) == CELLS


def test_a_row_is_an_estimate_of_its_cell():
    settings = Settings(seed="00", method="mc", n=4096, rtol=None, versions=versions())
    cell = Cell("gelu", 2.0, 0.5, 3)
    row = finished_cell(cell, "gelu", settings)
    rng = cell.generator("00")
    expected = cells.estimate_mloss("gelu", 2.0, 0.5, q=3, n=4096, rng=rng, method="mc")
    found = Estimate(row.value, row.stderr, row.n, row.degrees)
    assert found == expected
    assert row.cell == cell
    assert (row.drawn, row.reached) == (4096, None)


def test_numbers_do_not_depend_on_workers_order_or_the_other_cells():
    alone = numbers(small())
    assert numbers(small(workers=2)) == alone
    backwards = small(activations=["gelu", "relu"], ks=[4, 0.5], qs=[3, 2])
    assert numbers(backwards) == alone[::-1]
    assert numbers(small(activations=["gelu"], ks=[4], qs=[3])) == alone[-1:]


def test_cells_and_seeds_have_streams_of_their_own():
    grid = [Cell(*at) for at in [*CELLS, ("relu", 0.5, 2.0, 2), ("relu", 2.0, 0.5, 2)]]
    drawn = {c.generator(seed).integers(2**63) for c in grid for seed in ("00", "01")}
    assert len(drawn) == 2 * len(grid)


def test_the_metadata_say_how_the_numbers_came_about():
    table = small(rtol=0.1)
    metadata = json.loads(table.schema.metadata[b"mloss.sweep"])
    settings = metadata["settings"]
    assert metadata["format"] == 1
    assert settings["seed"] == np.random.default_rng(0).bytes(16).hex()
    assert (settings["method"], settings["n"], settings["rtol"]) == ("mc", 4096, 0.1)
    assert settings["versions"]["numpy"] == np.__version__
    (run,) = metadata["runs"]
    assert run["workers"] == "1 local"
    assert run["started"] < table["finished"][0].as_py().isoformat()


def test_functions_go_by_the_names_they_are_given():
    def bent(x):
        return np.maximum(x, 0.3 * x)

    table = small(activations={"bent": bent, "relu": relu}, ks=[1], qs=[2])
    found = table["value"].to_pylist()
    assert table["activation"].to_pylist() == ["bent", "relu"]
    assert numbers(small(activations=["relu"], ks=[1], qs=[2])) == numbers(table)[1:]
    assert found[0] < found[1]


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (2, [2]),
        (FIRST, [FIRST]),
        (2 * FIRST - 1, [2 * FIRST - 1]),
        (8 * FIRST, [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]),
        (5 * FIRST, [5 * FIRST // 4, 5 * FIRST // 2, 5 * FIRST]),
    ],
)
def test_rounds_double_up_to_the_largest(n, sizes):
    assert round_sizes(n) == sizes


@pytest.mark.parametrize(
    ("errors", "reported"),
    [
        ([0.5, 0.09, 0.05, 0.01], 2),  # the first within 0.1 only tells the size
        ([0.09, 0.11, 0.08, 0.01], 2),  # a miss is not reported while there is more
        ([0.5, 0.4, 0.3, 0.09], 3),  # the largest round is
        ([0.5, 0.4, 0.3, 0.2], 3),
        ([0.5, 0.4, 0.09, 0.2], 3),
        ([0.0, 0.0, 0.3, 0.3], 1),
    ],
)
def test_what_is_reported_did_not_decide_its_own_size(monkeypatch, errors, reported):
    rounds = iter(
        Estimate(1.0, error, size, 15)
        for error, size in zip(errors, round_sizes(8 * FIRST), strict=True)
    )
    monkeypatch.setattr(cells, "estimate_mloss", lambda *_, **__: next(rounds))
    settings = Settings("00", "mc", 8 * FIRST, 0.1, versions())
    row = finished_cell(Cell("relu", 1.0, 1.0, 2), "relu", settings)
    assert row.stderr == errors[reported]
    assert row.n == FIRST * 2**reported
    assert row.drawn == FIRST * (2 ** (reported + 1) - 1)
    assert row.reached == (errors[reported] <= 0.1)


def test_cells_stop_at_the_relative_error_asked_for():
    table = small(n=2**20, rtol=0.01)
    relative = np.divide(table["stderr"], table["value"])
    assert table["reached"].to_pylist() == [True] * len(CELLS)
    assert (relative <= 0.01).all()
    assert max(table["n"].to_pylist()) < 2**20
    short = small(n=2**15, rtol=1e-5)
    assert short["reached"].to_pylist() == [False] * len(CELLS)
    assert short["n"].to_pylist() == [2**15] * len(CELLS)


def test_a_round_too_small_to_meet_a_loss_is_passed_over():
    # One plain sample in 10^5 meets the kink.
    options = {"activations": ["relu"], "ks": [1e5], "qs": [2]}
    (row,) = small(n=2**18, rtol=0.9, **options).to_pylist()
    assert row["value"] > 0
    with pytest.raises(ValueError, match=r"n must be larger.* \(in Cell\(.*k=1000"):
        small(n=4, **options)


def test_no_loss_is_reached_at_once():
    (row,) = small(
        activations=["identity"], ks=[1], qs=[2], n=2**20, rtol=0.01
    ).to_pylist()
    assert (row["value"], row["stderr"], row["reached"]) == (0.0, 0.0, True)
    assert row["n"] < 2**20


def sixteen_sets(*_, n, rng, **__):
    """An estimate of one whose error is about 1 % at four first rounds' samples."""
    sets = rng.normal(1.0, 0.04 * (4 * FIRST / n) ** 0.75, size=16)
    return Estimate(sets.mean(), sets.std(ddof=1) / 4, n, 15)


def test_stopping_early_does_not_cost_coverage(monkeypatch):
    """Reporting the first round within rtol would cover 93.3 % here."""
    monkeypatch.setattr(cells, "estimate_mloss", sixteen_sets)
    runs, held = 10_000, 0
    settings = Settings("00", "qmc", 2**10 * FIRST, 0.01, versions())
    for run in range(1, runs + 1):
        row = finished_cell(Cell("relu", float(run), 1.0, 2), "relu", settings)
        assert row.reached
        low, high = Estimate(row.value, row.stderr, row.n, row.degrees).interval(0.95)
        held += low <= 1 <= high
    low, high = binom.interval(1 - 1e-6, runs, 0.95)
    assert low <= held <= high


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activations": "relu"}, TypeError, "activations must be a sequence of names"),
        ({"activations": [relu]}, TypeError, "activations must be a sequence of names"),
        ({"activations": ["relo"]}, ValueError, "activation must be one of"),
        ({"activations": []}, ValueError, "must each name at least one"),
        ({"ks": []}, ValueError, "must each name at least one"),
        ({"ks": [-1.0]}, ValueError, "ks must be finite and above 0, got -1.0"),
        ({"sigmas": [np.nan]}, ValueError, "sigmas must be finite and above 0"),
        ({"qs": [0]}, ValueError, "qs must be at least 1, got 0"),
        ({"qs": [2.5]}, TypeError, "qs must be an integer, got 2.5"),
        ({"n": 1}, ValueError, "n must be at least 2, got 1"),
        ({"rtol": 0.0}, ValueError, "rtol must be finite and above 0, got 0.0"),
        ({"method": "mcmc"}, ValueError, "method must be one of"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
    ],
)
def test_a_bad_argument_is_named(tmp_path, options, error, message):
    out = tmp_path / "sweep.parquet"
    with pytest.raises(error, match=message):
        small(out=out, **options)
    # Nothing stands in the way of trying again.
    assert len(small(out=out)) == len(CELLS)


def test_a_seed_is_not_a_generator():
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator"):
        sweep(["relu"], [1.0], [1.0], n=10, rng=0)


def test_progress_counts_every_cell():
    seen = []
    small(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(9)]
