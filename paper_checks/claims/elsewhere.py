"""Claims that need checkpoints, data or hardware this command does not have."""

from functools import partial

from paper_checks.record import Finding
from paper_checks.registry import claim

_CHECKPOINTS = (
    "It needs the eight fine-tuned CLIP checkpoints and their test sets, tens of "
    "gigabytes that this command does not download."
)
_HARDWARE = "It is a wall-clock time on one NVIDIA RTX A6000."

_CLAIMS = {
    "clip-accuracies": (
        "Tables 1 to 6",
        "The printed accuracies of the merged CLIP models",
        _CHECKPOINTS,
    ),
    "clip-layer-profile": (
        "Section 6.6, Figure 3",
        "In ViT-B/32 the first layer and the last few hold higher M-Loss than others",
        _CHECKPOINTS,
    ),
    "merging-time": (
        "Section 6.3",
        "Merging ViT-B/32 and ViT-L/14 takes M-TIES 1.5 and 3 min, TIES 0.5 and 1 min",
        _HARDWARE,
    ),
    "evaluation-time": (
        "Section 6.3",
        "Evaluation takes about 5 minutes for ViT-B/32 and 15 for ViT-L/14",
        _HARDWARE,
    ),
}

for _name, (_where, _states, _reason) in _CLAIMS.items():
    claim(_name, where=_where, states=_states, recorded="not checkable here")(
        partial(Finding.not_checkable, _reason)
    )
