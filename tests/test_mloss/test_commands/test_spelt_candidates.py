import pytest

from mloss.commands.spelt_candidates import spelt
from mloss.compare import default_grid
from mloss.merging import METHODS


def test_text_names_what_its_candidates_are_called():
    text = "average,ties:density=0.1/0.2:scale=1,"
    found = spelt(text + "m_ties:density=0.5:combine=disjoint_mean")
    assert [one.name for one in found] == [
        "average",
        "ties:density=0.1:scale=1.0",
        "ties:density=0.2:scale=1.0",
        "m_ties:density=0.5:combine=disjoint_mean",
    ]
    assert spelt(",".join(one.name for one in found)) == found


def test_a_value_in_quotes_keeps_its_marks():
    found = spelt('m_ties:density=0.2/0.4:layers="0,1"/2,average')
    assert [dict(one.options) for one in found] == [
        {"density": 0.2, "layers": "0,1"},
        {"density": 0.2, "layers": "2"},
        {"density": 0.4, "layers": "0,1"},
        {"density": 0.4, "layers": "2"},
        {},
    ]
    assert found[0].name == 'm_ties:density=0.2:layers="0,1"'
    assert spelt(",".join(one.name for one in found)) == found


def test_a_path_in_quotes_is_one_value():
    with pytest.raises(ValueError, match=r"absent/rates\.safetensors"):
        spelt('ties:rates="absent/rates.safetensors"')


def test_a_method_alone_is_its_grid_and_all_is_every_method():
    assert spelt("ties, ties") == default_grid("ties")
    assert {one.method for one in spelt("all")} == set(METHODS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "method 'nothing' is not one of: "),
        ("average:density=1", "average has no option density; it has none"),
        ("ties:depth=1", "ties has no option depth; it has density, "),
        ("ties:density", "must be spelt METHOD"),
        ("ties:density=1:density=2", "must be spelt METHOD"),
        ("ties:density=much", "the option density must be a number, got 'much'"),
        ("", "a method has no name in ''"),
        ("ties,", "a method has no name in ''"),
        ('m_ties:layers="0,1', "a quote is not closed"),
    ],
)
def test_what_is_misspelt_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        spelt(text)
