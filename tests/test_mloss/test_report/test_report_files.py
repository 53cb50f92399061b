import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from report_scores import FIELDS, four_layers, score, site

from mloss import Gap
from mloss.report import as_json, verdict, worst_nodes, write_heat_map, write_nodes
from mloss.whole_file import write_whole

ORIGIN = {"base": Path("base"), "sources": ["a", "b"], "seed": 0, "seconds": math.inf}
SEEN = {"base": "base", "sources": ["a", "b"], "seed": 0, "seconds": None}


def test_every_node_comes_back_from_the_file(tmp_path):
    scored = four_layers()
    write_nodes(scored, tmp_path / "nodes.parquet", provenance=ORIGIN)
    table = pq.read_table(tmp_path / "nodes.parquet")
    layers = [one.layer_name for one in scored.sites for _ in one.node]
    assert table["layer"].to_pylist() == layers
    assert table["node"].to_pylist() == [0, 1] * 4
    columns = {
        "mloss": lambda one: one.node,
        "stderr": lambda one: one.node_stderr,
        "q05": lambda one: one.node_quantiles[0],
        "q50": lambda one: one.node_quantiles[1],
        "q95": lambda one: one.node_quantiles[2],
        "normalized": lambda one: one.node_normalized,
        "prediction_paper": lambda one: one.paper_prediction,
        "prediction_uniform": lambda one: one.prediction,
        "prediction_density": lambda one: one.density_prediction,
    }
    for name, of in columns.items():
        expected = np.concatenate([of(one) for one in scored.sites])
        assert table[name].to_pylist() == expected.tolist()
    assert table["prediction_data_free"].null_count == 8
    assert table.column_names == ["layer", "node", *columns, "prediction_data_free"]


def test_the_file_says_what_it_was_made_from(tmp_path):
    write_nodes(four_layers(), tmp_path / "nodes.parquet", provenance=ORIGIN)
    metadata = pq.read_schema(tmp_path / "nodes.parquet").metadata
    assert json.loads(metadata[b"mloss.score"]) == {"samples": 128, **SEEN}


def test_infinite_errors_are_null_in_the_file(tmp_path):
    write_nodes(four_layers(error=math.inf), tmp_path / "n.parquet", provenance={})
    assert pq.read_table(tmp_path / "n.parquet")["stderr"].null_count == 8


def test_the_record_is_json_with_the_numbers_of_the_score():
    scored, gap = four_layers(), Gap(mean=1.0, stderr=0.01, relative=0.1, samples=64)
    record = json.loads(
        json.dumps(
            as_json(scored, provenance=ORIGIN, gap=gap, worst=3), allow_nan=False
        )
    )
    judged = verdict(scored, gap=gap)
    assert record["verdict"]["level"] == judged.level == "apart"
    assert record["verdict"]["sentence"] == judged.sentence
    assert record["samples"] == 128
    assert record["gap"] == {
        "mean": 1.0,
        "stderr": 0.01,
        "relative": 0.1,
        "samples": 64,
    }
    assert [row["mloss"] for row in record["layers"]] == [s.layer for s in scored.sites]
    worst = worst_nodes(scored, count=3)
    assert [node["mloss"] for node in record["worst_nodes"]] == [n.mloss for n in worst]
    density = [a for a in record["agreement"] if a["prediction"] == "density"]
    assert [a["layer_name"] for a in density] == [
        *(s.layer_name for s in scored.sites),
        None,
    ]
    assert record["provenance"] == SEEN


def test_what_is_not_known_is_null():
    bare = replace(site(error=math.inf), **dict.fromkeys(FIELDS))
    gap = Gap(mean=1.0, stderr=math.inf, relative=math.inf, samples=1)
    record = as_json(score(bare, samples=1), provenance={}, gap=gap)
    json.dumps(record, allow_nan=False)
    assert record["layers"][0]["stderr"] is None
    assert record["layers"][0]["ratios"]["density"] is None
    assert record["worst_nodes"][0]["density_prediction"] is None
    assert record["gap"]["relative"] is None
    assert as_json(score(bare), provenance={})["gap"] is None


def test_an_explanation_is_passed_on():
    record = as_json(four_layers(), provenance={}, explanation="mostly interaction")
    assert record["explanation"] == "mostly interaction"
    assert as_json(four_layers(), provenance={})["explanation"] is None


def test_the_heat_map_is_written_as_two_images(tmp_path):
    paths = write_heat_map(four_layers(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heat_map.png",
        "heat_map.svg",
    ]
    assert all(path.stat().st_size > 0 for path in paths)


def test_what_json_has_no_word_for_is_refused():
    with pytest.raises(TypeError, match="provenance holds a set"):
        as_json(four_layers(), provenance={"tags": {1}})


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "report.html"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "text")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
