"""Few-Layer M-TIES: in which layers budgets differ from node to node (section 6.6)."""

from collections.abc import Callable, Sequence

from mloss.sites import Site

_FEW = (0, -4, -3, -2)


def chosen_sites(
    sites: Sequence[Site], layers: str, *, mean_scores: Callable[[], list[float]]
) -> list[Site]:
    """Choose sites, in forward order, by a word or by their positions.

    "all" is every site; "few" the first and the last three but one, which in twelve
    blocks are the paper's 0, 8, 9 and 10; "auto" the third of the sites with the
    highest `mean_scores`, asked for only then; "0,8,9,10" the sites at these positions.
    Raises ValueError for another word and for a position there is not.
    """
    if layers == "all":
        return list(sites)
    if layers == "few":
        wanted = {place % len(sites) for place in _FEW if -place <= len(sites)}
    elif layers == "auto":
        means = mean_scores()
        by_mean = sorted(range(len(sites)), key=lambda place: -means[place])
        wanted = set(by_mean[: -(-len(sites) // 3)])
    else:
        wanted = _positions(layers, len(sites))
    return [site for place, site in enumerate(sites) if place in wanted]


def _positions(layers: str, count: int) -> set[int]:
    words = [word.strip() for word in layers.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ValueError(
            "layers must be 'all', 'few', 'auto' or positions such as '0,8,9', got "
            f"{layers!r}"
        )
    wanted = set(map(int, words))
    if max(wanted) >= count:
        raise ValueError(
            f"layers names the position {max(wanted)}, but the network has {count} "
            "activation sites, counted from 0"
        )
    return wanted
