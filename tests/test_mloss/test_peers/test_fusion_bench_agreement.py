"""Our methods against FusionBench's own, on the same tensors (docs/peers.md)."""

import warnings
from copy import deepcopy

import pytest
import torch
from families import EPS32, family, flat, same
from torch import nn

from mloss import merge

# What others warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fusion_bench = pytest.importorskip("fusion_bench", reason="needs fusion-bench")
    methods = pytest.importorskip("fusion_bench.method", reason="needs fusion-bench")

Q = 3


def ours(method, base, sources, **options):
    return merge(base, sources, method=method, **options).state


def theirs(algorithm, base, sources):
    """Their merge, of copies: they change the models of a pool."""
    models = {"_pretrained_": base} | {f"m{i}": s for i, s in enumerate(sources)}
    pool = fusion_bench.BaseModelPool(deepcopy(models))
    return algorithm.run(pool).state_dict()


def test_average_is_theirs():
    base, sources = family(Q)
    merged = theirs(methods.SimpleAverageAlgorithm(), base, sources)
    same(ours("average", base, sources), merged)


def test_task_arithmetic_is_theirs_with_scale_for_the_sum():
    base, sources = family(Q)
    merged = theirs(methods.TaskArithmeticAlgorithm(scaling_factor=0.3), base, sources)
    same(ours("task_arithmetic", base, sources, scale=0.3 * Q), merged)


@pytest.mark.parametrize(
    ("merge_func", "combine", "scale"),
    [("mean", "disjoint_mean", 0.3), ("sum", "weighted_sum", 0.3 * Q)],
)
@pytest.mark.parametrize("percent", [20, 50])
def test_ties_is_theirs_with_one_entry_more(percent, merge_func, combine, scale):
    base, sources = family(Q)
    size = len(flat(base.state_dict()))
    algorithm = methods.TiesMergingAlgorithm(
        scaling_factor=0.3, threshold=percent, remove_keys=[], merge_func=merge_func
    )
    options = {
        "density": (size * percent // 100 + 1) / size,
        "trimming": "model",
        "combine": combine,
        "scale": scale,
    }
    same(ours("ties", base, sources, **options), theirs(algorithm, base, sources))


def test_dare_drops_and_rescales_as_they_do():
    utils = pytest.importorskip("fusion_bench.method.dare.utils")
    torch.manual_seed(0)
    n, density = 40_000, 0.2
    step = {"w": torch.rand(n, dtype=torch.float64) + 0.5}
    merged = {"w": step["w"].clone()}
    utils.module_random_drop_(merged, sparsity_level=1 - density, rescale=True)
    base = {"w": torch.zeros(n, dtype=torch.float64)}
    drawn = {"generator": torch.Generator().manual_seed(0), "density": density}
    mine = ours("dare_linear", base, [step], **drawn)
    # Five standard errors of a binomial share.
    error = 5 * (density * (1 - density) / n) ** 0.5
    for state in (mine, merged):
        kept = state["w"] != 0
        assert abs(kept.double().mean() - density) < error
        same({"w": state["w"][kept]}, {"w": (step["w"] / density)[kept]})


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_is_theirs(t):
    slerp = pytest.importorskip("fusion_bench.method.slerp.slerp")
    base, sources = family(q=2)
    merged = slerp.slerp_on_state_dicts(t, *(s.state_dict() for s in sources))
    same(ours("slerp", base, sources, weights=[1 - t, t]), merged)


def test_model_stock_of_two_is_theirs():
    # They work with cosines in float32, and add 1e-8 to denominators.
    base, sources = family(q=2)
    merged = theirs(methods.ModelStock(), base, sources)
    same(ours("model_stock", base, sources), merged, unit=EPS32)


def test_model_stock_of_more_takes_cosines_and_theirs_the_mean_of_angles():
    base, sources = family(Q)
    merged = theirs(methods.ModelStock(), base, sources)
    off = flat(ours("model_stock", base, sources)) - flat(merged)
    step = flat(merged) - flat(base.state_dict())
    assert 1e-3 < off.norm() / step.norm() < 1e-1


# Singular vectors are as uncertain as gaps between singular values are narrow; the
# products that are merged are not, but for the condition of the joined vectors.
SPECTRAL = 2**12


def test_iso_c_is_theirs():
    base, sources = family(Q)
    merged = theirs(methods.ISO_C_Merge(scaling_factor=0.7), base, sources)
    same(ours("iso_c", base, sources, scale=0.7), merged, roundings=SPECTRAL)


def test_iso_cts_is_theirs():
    base, sources = family(Q)
    algorithm = methods.ISO_CTS_Merge(scaling_factor=0.7, common_space_fraction=0.8)
    merged = theirs(algorithm, base, sources)
    same(ours("iso_cts", base, sources, scale=0.7), merged, roundings=SPECTRAL)


def test_tsv_m_is_theirs():
    base, sources = family(Q)
    merged = theirs(methods.TaskSingularVectorMerging(), base, sources)
    same(ours("tsv_m", base, sources), merged, roundings=SPECTRAL)


@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_opcm_is_theirs(alpha, monkeypatch):
    # Importing it imports their CLIP rooms, which need a class that transformers 5 has
    # no more.
    clip = pytest.importorskip("transformers.models.clip.modeling_clip")
    monkeypatch.setattr(clip, "CLIPVisionTransformer", nn.Module, raising=False)
    opcm = pytest.importorskip("fusion_bench.method.opcm.opcm_general")
    base, sources = family(Q)
    algorithm = opcm.OPCM(alpha=alpha, shuffle_order=False, save_on_every_step=False)
    merged = theirs(algorithm, base, sources)
    same(ours("opcm", base, sources, alpha=alpha), merged, roundings=SPECTRAL)


@pytest.mark.parametrize("mask_scale", [0.2, 0.6])
def test_consensus_has_their_masks(mask_scale):
    tall = pytest.importorskip("fusion_bench.method.tall_mask.utils")
    base, sources = family(Q)
    start = flat(base.state_dict())
    ends = torch.stack([flat(source.state_dict()) for source in sources])
    masks = tall.generate_task_masks(
        ends - start, ends, start, tall_mask_lambda=mask_scale
    )
    expected = start + (ends - start).mean(0) * (masks.sum(0) >= 2)
    merged = flat(ours("consensus", base, sources, mask_scale=mask_scale))
    same({"all": merged}, {"all": expected})


def test_regmean_solves_their_equations():
    regmean = pytest.importorskip("fusion_bench.method.regmean.regmean")
    base, sources = family(Q)
    torch.manual_seed(1)
    data = [torch.randn(40, 30, dtype=torch.float64) for _ in sources]
    grams = [
        {"0": x.T @ x / 40, "2": h.T @ h / 40}
        for x, h in zip(data, map(_hidden, sources, data), strict=True)
    ]
    with torch.no_grad():
        merged = regmean.merging_with_regmean_weights(
            _parameters(sources), grams, reduce_non_diagonal_ratio=0.875
        )
    mine = ours("regmean", base, sources, task_data=data, off_diagonal=0.875)
    # Their factors are float32, in which 0.875 is exact. Solving multiplies roundings
    # by the condition of the summed grams.
    condition = max(
        torch.linalg.cond(sum(gram[name] for gram in grams)).item() for name in "02"
    )
    same(mine, merged, roundings=64 * condition)


def _parameters(sources):
    named = [dict(source.named_parameters()) for source in sources]
    return {name: [each[name] for each in named] for name in named[0]}


def _hidden(source, x):
    with torch.no_grad():
        return source[:2](x)


def test_fisher_weighs_as_they_do():
    # They add to a small Fisher information what we raise it to: so little of both
    # that neither shows.
    fisher = pytest.importorskip("fusion_bench.method.fisher_merging.fisher_merging")
    base, sources = family(Q)
    torch.manual_seed(1)
    data = [torch.randn(8, 30, dtype=torch.float64) for _ in sources]
    information = [_information(*pair) for pair in zip(sources, data, strict=True)]
    with torch.no_grad():
        merged = fisher.merging_with_fisher_weights(
            _parameters(sources),
            information,
            fisher_scaling_coefficients=torch.ones(Q) / Q,
            minimal_fisher_weight=1e-30,
        )
    mine = ours(
        "fisher",
        base,
        sources,
        task_data=data,
        heads=[lambda outputs: outputs] * Q,
        probes=None,
        floor=1e-30,
        generator=torch.Generator().manual_seed(0),
    )
    # Sums of squares over eight samples and ten classes.
    same(mine, merged, roundings=512)


def _information(source, x):
    """Mean over samples of E_c (d log p_c / d theta)^2, one class and one by one."""
    total = {name: torch.zeros_like(p) for name, p in source.named_parameters()}
    for sample in x.split(1):
        log_p = source(sample).log_softmax(-1)[0]
        for chosen in log_p:
            gradients = torch.autograd.grad(
                chosen, list(source.parameters()), retain_graph=True
            )
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += chosen.detach().exp() * gradient**2 / len(x)
    return total
