"""Small transformers, sources near them, and their attention written out in loops."""

import math

import pytest
import torch
from small_transformers import pixels, tokens
from torch import nn

from mloss.merging import average

transformers = pytest.importorskip("transformers", reason="needs the extra `hub`")

EPS = torch.finfo(torch.float64).eps
WEIGHTS = [0.2, 0.3, 0.5]
_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def clip(**options):
    config = transformers.CLIPVisionConfig(
        **_SMALL, image_size=8, patch_size=4, **options
    )
    return transformers.CLIPVisionModelWithProjection(config)


def vit():
    config = transformers.ViTConfig(**_SMALL, image_size=8, patch_size=4)
    return transformers.ViTModel(config, add_pooling_layer=False)


def bert(**options):
    config = transformers.BertConfig(**_SMALL, vocab_size=40, **options)
    return transformers.BertModel(config, add_pooling_layer=False)


def llama():
    config = transformers.LlamaConfig(
        **_SMALL, vocab_size=40, num_key_value_heads=2, head_dim=6
    )
    return transformers.LlamaModel(config)


def distilbert():
    config = transformers.DistilBertConfig(
        dim=16, n_layers=2, n_heads=4, hidden_dim=24, vocab_size=40
    )
    return transformers.DistilBertModel(config)


def torch_encoder(*, batch_first=True):
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


ARCHITECTURES = [
    pytest.param(build, batch, id=build.__name__)
    for build, batch in [
        *((clip, pixels), (vit, pixels)),
        *((bert, tokens), (llama, tokens), (distilbert, tokens)),
    ]
]


def small(build, **options):
    """The same float64 model every time, its parameters of order one."""
    torch.manual_seed(0)
    model = build(**options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def near(model, *, q=3, step=0.1, only=""):
    """States off by a normal step in the floating entries whose key has `only`."""
    torch.manual_seed(1)
    return [
        {
            key: value + step * torch.randn_like(value)
            if value.is_floating_point() and only in key
            else value
            for key, value in model.state_dict().items()
        }
        for _ in range(q)
    ]


def opposite(model, *, step):
    """Two states on opposite sides of a model."""
    (there,) = near(model, q=1, step=step)
    base = model.state_dict()
    return [there, {k: 2 * v - there[k] for k, v in base.items()}]


def loaded(build, state, **options):
    model = build(**options).double().eval()
    model.load_state_dict(state)
    return model


def members(build, base, sources, **options):
    """The merge and the sources as modules."""
    mean = average(base.state_dict(), sources, weights=WEIGHTS)
    return [loaded(build, state, **options) for state in (mean, *sources)]


def weighted(values):
    return sum(w * value for w, value in zip(WEIGHTS, values, strict=True))


def entering(model, names, batch):
    """First argument and first result of submodules, caught by hooks of the test."""
    seen = {}

    def keep(name):
        def hook(_, args, kwargs, output):
            first = (*args, *kwargs.values())[0]
            seen[name] = (first, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [
        model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True)
        for name in names
    ]
    with torch.no_grad():
        model(**batch) if isinstance(batch, dict) else model(batch)
    for handle in handles:
        handle.remove()
    return seen


def attention_names(model):
    kinds = (
        *("CLIPAttention", "ViTAttention", "BertSelfAttention", "LlamaAttention"),
        "DistilBertSelfAttention",
    )
    return [n for n, m in model.named_modules() if type(m).__name__ in kinds]


def projection_of(model, name):
    if type(model).__name__ == "BertModel":
        return model.get_submodule(name.replace("self", "output")).dense
    module = model.get_submodule(name)
    children = dict(module.named_children())
    return next(children[n] for n in ("out_proj", "o_proj", "out_lin") if n in children)


def qkv(model, name, x):
    """Queries, keys and values [sample, token, head, entry], one head for each."""
    module = model.get_submodule(name)
    children = dict(module.named_children())
    layers = next(
        [children[n] for n in names]
        for names in (
            ("query", "key", "value"),
            ("q_proj", "k_proj", "v_proj"),
            ("q_lin", "k_lin", "v_lin"),
        )
        if names[0] in children
    )
    width = getattr(module, "head_dim", 4)
    q, k, v = (layer(x).unflatten(-1, (-1, width)) for layer in layers)
    if "Llama" in type(model).__name__:
        positions = torch.arange(x.shape[1])[None]
        cos, sin = (r[:, :, None] for r in model.rotary_emb(x, positions))
        q, k = (t * cos + rotated(t) * sin for t in (q, k))
        k, v = (t.repeat_interleave(2, dim=2) for t in (k, v))
    return q, k, v


def rotated(t):
    first, second = t.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def heads_by_loops(q, k, v, allowed):
    """softmax(q k' / sqrt(d)) v, one sample, head and token at a time."""
    out = torch.zeros_like(q)
    for s in range(q.shape[0]):
        for h in range(q.shape[2]):
            for t in range(q.shape[1]):
                keys = [u for u in range(k.shape[1]) if allowed[s, t, u]]
                scores = [
                    (q[s, t, h] @ k[s, u, h]).item() / math.sqrt(q.shape[-1])
                    for u in keys
                ]
                exponentials = [math.exp(score - max(scores)) for score in scores]
                for u, e in zip(keys, exponentials, strict=True):
                    out[s, t, h] += e / sum(exponentials) * v[s, u, h]
    return out


def allowed_keys(model, batch, tokens_seen):
    """Which token may look at which: no padding, and for Llama nothing later."""
    mask = batch.get("attention_mask")
    if mask is None:
        return torch.ones(3, tokens_seen, tokens_seen, dtype=torch.bool)
    seen = mask.bool()[:, None, :].expand(-1, tokens_seen, -1)
    causal = "Llama" in type(model).__name__
    return seen & torch.ones(tokens_seen, tokens_seen).tril().bool() if causal else seen


def real(batch, tokens_seen):
    mask = batch.get("attention_mask") if isinstance(batch, dict) else None
    return torch.ones(3, tokens_seen).bool() if mask is None else mask.bool()


def means_by_loops(values, present):
    """Means over real tokens of each sample [sample, ...]."""
    return torch.stack([v[p].mean(dim=0) for v, p in zip(values, present, strict=True)])
