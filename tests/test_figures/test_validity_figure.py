import numpy as np
import pytest
from matplotlib.colors import same_color
from numpy.testing import assert_allclose, assert_array_equal

from figures.validity import LEVELS, SHADES, Region, validity


@pytest.fixture
def region():
    """An excess of sigma^2 alone: contours at sigma = 0.1, sqrt 0.05 and sqrt 0.1."""
    k, sigma = np.geomspace(1, 100, 5), np.geomspace(0.01, 1, 201)
    predicted = np.full((3, 5), 0.2)
    predicted[0, 0], predicted[1, 1] = 0, np.inf
    return Region(
        title="GELU",
        k=k,
        sigma=sigma,
        excess=np.broadcast_to(sigma[:, None] ** 2, (201, 5)),
        predicted=predicted,
    )


def test_shades_end_where_the_law_is_off_by_their_level(region):
    (ax,) = validity([region]).axes
    shades = ax.collections[0]
    for path, colour, level, shade in zip(
        shades.get_paths(), shades.get_facecolor(), LEVELS, SHADES, strict=True
    ):
        assert same_color(colour, shade)
        # Linear interpolation on a grid whose steps are 2.3 %: half its square.
        assert_allclose(path.vertices[:, 1].max(), np.sqrt(level / 100), rtol=3e-4)
    assert ax.get_title() == "GELU"


def test_a_prediction_is_drawn_where_there_is_one(region):
    (ax,) = validity([region]).axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert_array_equal(lines["next order, 1 %"], [np.nan, 0.2, 0.2, 0.2, 0.2])
    assert_array_equal(lines["next order, 5 %"], [0.2, np.nan, 0.2, 0.2, 0.2])
    assert_array_equal(lines["next order, 10 %"], np.full(5, 0.2))


def test_the_legend_names_every_shade(region):
    (legend,) = validity([region, region]).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:3] == ["within 1 %", "within 5 %", "within 10 %"]
    assert names[3:] == ["next order", r"$\sigma = k$"]
