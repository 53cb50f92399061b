"""M-Loss beyond activations: attention heads, normalisations, the residual stream."""

from mloss.beyond.attention import AttentionLoss, AttentionScore, attention_mloss
from mloss.beyond.norms import NormLoss, NormScore, norm_mloss
from mloss.beyond.stream import BlockGap, StreamGap, stream_gap

__all__ = [
    "AttentionLoss",
    "AttentionScore",
    "BlockGap",
    "NormLoss",
    "NormScore",
    "StreamGap",
    "attention_mloss",
    "norm_mloss",
    "stream_gap",
]
