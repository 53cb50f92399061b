import numpy as np
from matplotlib.colors import same_color
from numpy.testing import assert_allclose

from figures.agreement import SPREAD, Differences, agreement

RATIO = np.array([1.0, 10.0, 100.0])


def differences(scale):
    return Differences(
        ratio=RATIO,
        difference=scale * np.array([1e-3, -2e-3, 0.0]),
        half_width=scale * np.array([1e-3, 1e-3, 4e-3]),
    )


PANELS = {
    "ReLU": {"2 models": differences(1.0), "8 models": differences(2.0)},
    "GELU": {"2 models": differences(3.0), "8 models": differences(4.0)},
}


def drawn(ax):
    """The marks' positions and colours, and their bars' ends, by label."""
    found = {}
    for container in ax.containers:
        markers, _, (bars,) = container
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        found[container.get_label()] = markers, ends
    return found


def test_differences_are_drawn_in_per_mille_with_their_intervals():
    for ax, (title, series) in zip(agreement(PANELS).axes, PANELS.items(), strict=True):
        assert ax.get_title() == title
        for label, (markers, ends) in drawn(ax).items():
            expected = series[label]
            # Three roundings of numbers of the order of one.
            assert_allclose(markers.get_ydata(), 1e3 * expected.difference, atol=1e-15)
            middle, half = ends.mean(axis=1), np.ptp(ends, axis=1) / 2
            assert_allclose(middle, 1e3 * expected.difference, atol=4e-15)
            assert_allclose(half, 1e3 * expected.half_width, rtol=0, atol=4e-15)


def test_marks_of_one_ratio_stand_side_by_side_around_it():
    (ax, _) = agreement(PANELS).axes
    first, second = (markers.get_xdata() for markers, _ in drawn(ax).values())
    assert_allclose(np.log10(second / first), SPREAD, rtol=1e-13)
    assert_allclose(np.sqrt(first * second), RATIO, rtol=1e-13)


def test_a_label_has_one_colour_in_every_panel():
    left, right = (drawn(ax) for ax in agreement(PANELS).axes)
    for label, (markers, _) in left.items():
        assert same_color(markers.get_color(), right[label][0].get_color())
    assert not same_color(*(markers.get_color() for markers, _ in left.values()))
