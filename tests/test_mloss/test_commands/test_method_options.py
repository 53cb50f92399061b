import argparse
import json
from pathlib import Path

import pytest
import torch

from mloss.commands import main
from mloss.commands.method_options import (
    add_method_options,
    files_of_options,
    parsed_options,
    texts_of_options,
)
from mloss.commands.model_card import model_card
from mloss.commands.options import file_size, whole
from mloss.merging import METHODS
from mloss.merging.pruning.node_rates import NodeRates


def given(*words):
    parser = argparse.ArgumentParser()
    add_method_options(parser)
    return texts_of_options(parser.parse_args(words))


def test_options_get_the_kinds_that_the_method_states():
    texts = given("--density", "0.3", "--option", "tokens=8", "--option", "bias=false")
    assert parsed_options("m_ties", texts) == {
        "density": 0.3,
        "tokens": 8,
        "bias": False,
    }
    assert parsed_options("m_ties", given("--option", "tokens=none")) == {
        "tokens": None
    }
    assert parsed_options("ties", given("--option", "trimming=model")) == {
        "trimming": "model"
    }
    assert parsed_options("tsv_m", given("--option", "exclude=a.w,b.w")) == {
        "exclude": ("a.w", "b.w")
    }


def test_keep_rates_come_from_their_file(tmp_path):
    rates = NodeRates({"fc": ("fc.weight",)}, {"fc": torch.tensor([0.1, 0.2])})
    rates.save(tmp_path / "rates")
    found = parsed_options("ties", given("--option", f"rates={tmp_path / 'rates'}"))
    assert torch.equal(found["rates"].rates["fc"], rates.rates["fc"])


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        ("average", ["--scale", "2"], "average has no option scale; it has none"),
        ("slerp", ["--scale", "2"], "slerp has no option scale; it has threshold"),
        ("ties", ["--density", "much"], "option density must be a number, got 'much'"),
        ("ties", ["--option", "trimming=row"], "must be tensor, model, got 'row'"),
        ("m_ties", ["--option", "tokens=1.5"], "must be a whole number or none"),
        ("ties", ["--scale", "1", "--option", "scale=2"], "scale is given twice"),
    ],
)
def test_what_does_not_fit_is_said(method, words, said):
    with pytest.raises(ValueError, match=said):
        parsed_options(method, given(*words))


@pytest.mark.parametrize("text", ["", "absent", "."])
def test_keep_rates_of_no_file(text):
    with pytest.raises(ValueError, match=f"a file of keep rates or none, got '{text}'"):
        parsed_options("ties", given("--option", f"rates={text}"))


@pytest.mark.parametrize(
    ("method", "name"), [("lines", "of_options"), ("bias_folding_data_free", "example")]
)
def test_what_no_text_can_say_is_no_option(method, name, capsys):
    assert name in METHODS[method].options
    with pytest.raises(ValueError, match=f"{method} has no option {name}; it has "):
        parsed_options(method, {name: "x"})
    assert main(["methods", "--json"]) == 0
    assert name not in json.loads(capsys.readouterr().out)[method]["options"]


def test_files_that_options_name():
    texts = {"rates": "there", "density": "0.3"}
    assert files_of_options("ties", texts) == {"rates": Path("there")}
    assert files_of_options("ties", {"rates": "none"}) == {}


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("9" * 18, 10**18 - 1)])
def test_whole_numbers(text, number):
    assert whole(0)(text) == number
    assert torch.Generator().manual_seed(number).initial_seed() == number


@pytest.mark.parametrize("text", ["9" * 19, "9" * 5000, "-1", "1.5", ""])
def test_what_is_no_whole_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"digits|whole number >= 0"):
        whole(0)(text)


def test_an_option_without_a_value():
    with pytest.raises(SystemExit):
        given("--option", "density")


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("2GiB", 2**31), ("7", 7), ("3k", 3000)],
)
def test_sizes_of_files(text, size):
    assert file_size(text) == size


@pytest.mark.parametrize("text", ["0", "GB", "-1GB", "1.5GB", "5PB"])
def test_what_is_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 5GB"):
        file_size(text)


def test_the_list_of_methods(capsys):
    assert main(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed.keys() == METHODS.keys()
    assert listed["ties"]["options"]["density"] == 0.2
    assert listed["m_ties"]["needs"] == ["data", "model"]
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in METHODS)


def test_models_of_the_hub_are_linked_and_local_ones_named():
    card = model_card(
        name="merged",
        base="owner/base",
        sources=["owner/one", "/home/me/two"],
        weights=[0.5, 0.5],
        method="average",
        options={},
        gap=None,
        mloss={},
        library=None,
    )
    assert '- "owner/base"\n- "owner/one"\nbase_model_relation: merge' in card
    assert "| two | 0.5 |" in card
    assert str(Path("/home/me")) not in card
