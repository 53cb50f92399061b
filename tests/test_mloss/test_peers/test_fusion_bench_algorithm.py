import warnings
from copy import deepcopy

import pytest
import torch
from families import family, same

from mloss import merge

# What others warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fusion_bench = pytest.importorskip("fusion_bench", reason="needs fusion-bench")
    from mloss.peers.fusion_bench_algorithm import MergingAlgorithm

YAML = """
_target_: mloss.peers.fusion_bench_algorithm.MergingAlgorithm
name: ties
options: {density: 0.3, combine: weighted_sum, weights: [0.5, 0.3, 0.2]}
"""


def pool(base, sources):
    models = {"_pretrained_": base} | {f"m{i}": s for i, s in enumerate(sources)}
    return fusion_bench.BaseModelPool(models)


def test_a_method_runs_on_a_pool_and_changes_none_of_it():
    base, sources = family()
    before = deepcopy([m.state_dict() for m in (base, *sources)])
    algorithm = MergingAlgorithm(name="task_arithmetic", options={"scale": 0.7})
    merged = algorithm.run(pool(base, sources))
    expected = merge(base, sources, method="task_arithmetic", scale=0.7).state
    same(merged.state_dict(), expected, roundings=0)
    assert merged is not base
    for model, state in zip((base, *sources), before, strict=True):
        same(model.state_dict(), state, roundings=0)


def test_a_dict_of_modules_is_a_pool():
    base, sources = family(q=2)
    merged = MergingAlgorithm(name="average").run(
        {"_pretrained_": base, "a": sources[0], "b": sources[1]}
    )
    expected = merge(base, sources, method="average").state
    same(merged.state_dict(), expected, roundings=0)


def test_a_configuration_makes_the_algorithm(tmp_path):
    path = tmp_path / "m_loss.yaml"
    path.write_text(YAML, encoding="utf-8")
    base, sources = family()
    merged = MergingAlgorithm.from_yaml(path).run(pool(base, sources))
    options = {"density": 0.3, "combine": "weighted_sum", "weights": [0.5, 0.3, 0.2]}
    expected = merge(base, sources, method="ties", **options).state
    same(merged.state_dict(), expected, roundings=0)


def test_its_configuration_says_what_it_was_given():
    algorithm = MergingAlgorithm(name="ties", options={"density": 0.3}, seed=5)
    config = algorithm.config
    assert config.name == "ties"
    assert config.options.density == 0.3
    assert config.seed == 5


DATA = torch.randn(6, 30, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("m_ties", {"data": DATA}),
        ("regmean", {"task_data": [DATA, DATA + 1]}),
    ],
)
def test_data_reach_the_methods_that_need_them(name, given):
    base, sources = family(q=2)
    merged = MergingAlgorithm(name=name, **given).run(pool(base, sources))
    expected = merge(base, sources, method=name, **given).state
    same(merged.state_dict(), expected, roundings=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_drawn_comes_from_the_seed(seed):
    base, sources = family()
    algorithm = MergingAlgorithm(name="dare_linear", seed=seed)
    merged = algorithm.run(pool(base, sources)).state_dict()
    drawn = torch.Generator().manual_seed(seed)
    expected = merge(base, sources, method="dare_linear", generator=drawn).state
    same(merged, expected, roundings=0)


def test_an_unknown_method_is_refused():
    base, sources = family()
    with pytest.raises(ValueError, match="is not one of"):
        MergingAlgorithm(name="alchemy").run(pool(base, sources))
