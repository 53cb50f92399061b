import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mloss.calibration import open_calibration

transformers = pytest.importorskip("transformers", reason="needs the extra `hub`")


@pytest.fixture
def clip(tmp_path):
    """A directory with the files CLIP's image processor is made from."""
    directory = tmp_path / "clip"
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
    )
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def bert(tmp_path):
    """A directory with a word-level tokenizer and a configuration of length 6."""
    directory = tmp_path / "bert"
    directory.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
    vocabulary = directory / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(vocabulary))
    tokenizer.save_pretrained(directory)
    transformers.BertConfig(max_position_embeddings=6).save_pretrained(directory)
    return directory


def photographs(folder, count, seed=0):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_images_come_as_the_processor_makes_them(tmp_path, clip):
    folder = photographs(tmp_path / "images", 5)
    batches = list(open_calibration(folder, checkpoint=clip).batches(4, size=3))
    assert [b["pixel_values"].shape for b in batches] == [(3, 3, 8, 8), (1, 3, 8, 8)]
    processor = transformers.CLIPImageProcessorPil.from_pretrained(clip)
    known = processor([Image.open(f) for f in folder.iterdir()], return_tensors="pt")[
        "pixel_values"
    ]
    for image in torch.cat([batch["pixel_values"] for batch in batches]):
        assert any(torch.equal(image, other) for other in known)


def test_plain_images_are_resized_whole_and_in_the_unit_interval(tmp_path, clip):
    folder = photographs(tmp_path / "images", 1)
    calibration = open_calibration(folder, checkpoint=clip, plain_images=True)
    (batch,) = calibration.batches(1)
    with Image.open(folder / "0.png") as image:
        whole = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC)) / 255
    expected = torch.from_numpy(whole).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(batch["pixel_values"], expected, rtol=0, atol=1e-6)


def test_the_seed_decides_the_order(tmp_path, clip):
    folder = photographs(tmp_path / "images", 6)

    def drawn(seed):
        calibration = open_calibration(folder, checkpoint=clip, seed=seed)
        return torch.cat([b["pixel_values"] for b in calibration.batches(6)])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_what_does_not_decode_is_skipped_and_reported(tmp_path, clip):
    folder = photographs(tmp_path / "images", 3)
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:40])
    (folder / "notes.md").write_text("not an image")
    calibration = open_calibration(folder, checkpoint=clip)
    (batch,) = calibration.batches(10)
    assert len(batch["pixel_values"]) == 3
    (line,) = calibration.skipped
    assert line.startswith("torn.png: ")


def test_only_broken_images_are_no_data(tmp_path, clip):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"none of the 1 images decodes.*torn\.png"):
        list(open_calibration(folder, checkpoint=clip).batches(4))


@pytest.mark.parametrize("shape", [(4, 9, 9), (4, 9, 9, 1), (4, 9, 9, 3)])
def test_arrays_of_images(tmp_path, clip, shape):
    np.savez(tmp_path / "a.npz", x_train=np.full(shape, 255, np.uint8))
    (batch,) = open_calibration(tmp_path / "a.npz", checkpoint=clip).batches(9)
    assert batch["pixel_values"].shape == (4, 3, 8, 8)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz"])
def test_texts_are_padded_and_cut_to_the_length_of_the_model(tmp_path, bert, name):
    lines = ["one", "two three", "", "one two three one two three one two three"]
    if "jsonl" in name:
        lines = [json.dumps({"text": line, "label": 3}) for line in lines if line]
    path = tmp_path / name
    with gzip.open(path, "wt") if name.endswith("gz") else path.open("w") as file:
        file.write("\n".join(lines))
    (batch,) = open_calibration(path, checkpoint=bert).batches(9)
    assert sorted(batch["attention_mask"].sum(dim=1).tolist()) == [3, 4, 6]


def test_several_paths_are_drawn_from_in_equal_parts(tmp_path, bert):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one\n" * 9)
    second.write_text("two\n" * 9)
    (batch,) = open_calibration([first, second], checkpoint=bert).batches(4)
    words = batch["input_ids"][:, 1].tolist()
    assert words.count(5) == words.count(6) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", '{"label": 1}', r"a\.jsonl:1 has no text under text.*has label"),
        ("a.jsonl", "[1]", "must be a JSON object"),
        ("a.txt", "\n\n", "has no text in it"),
        ("a.csv", "one", "is neither an image folder nor"),
    ],
)
def test_texts_that_are_not(tmp_path, bert, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        open_calibration(tmp_path / name, checkpoint=bert)


def test_bytes_that_are_no_text(tmp_path, bert):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one two")[:-9])
    with pytest.raises(ValueError, match="cannot be read as UTF-8 text"):
        open_calibration(tmp_path / "a.txt.gz", checkpoint=bert)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(3)}, "no array named images.*it has labels"),
        ({"x": np.zeros((3, 4, 4))}, "must be uint8 images"),
        ({"x": np.zeros((3, 4), np.uint8)}, "must be uint8 images"),
    ],
)
def test_arrays_that_are_not_images(tmp_path, clip, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_calibration(tmp_path / "a.npz", checkpoint=clip)


def test_a_pickle_in_an_npz_is_not_opened(tmp_path, clip):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", x=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz is not a readable"):
        open_calibration(tmp_path / "a.npz", checkpoint=clip)
    assert not (tmp_path / "sprung").exists()


def test_nothing_there(tmp_path, clip):
    with pytest.raises(ValueError, match="does not exist"):
        open_calibration(tmp_path / "none.npz", checkpoint=clip)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image file"):
        open_calibration(tmp_path / "empty", checkpoint=clip)


def test_a_checkpoint_without_its_processor(tmp_path):
    folder = photographs(tmp_path / "images", 1)
    with pytest.raises(ValueError, match=r"has no usable preprocessor_config\.json"):
        open_calibration(folder, checkpoint=tmp_path)
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(ValueError, match=r"has no usable tokenizer\.json"):
        open_calibration(tmp_path / "a.txt", checkpoint=tmp_path)


def test_images_and_texts_do_not_mix(tmp_path, clip):
    folder = photographs(tmp_path / "images", 1)
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(ValueError, match="all images or all texts"):
        open_calibration([folder, tmp_path / "a.txt"], checkpoint=clip)


def test_a_tokenizer_without_words_is_none(tmp_path):
    config = transformers.BertConfig(hidden_size=8, num_attention_heads=2)
    config.save_pretrained(tmp_path)
    (tmp_path / "texts.txt").write_text("a text")
    with pytest.raises(ValueError, match=r"has no usable tokenizer\.json"):
        open_calibration(tmp_path / "texts.txt", checkpoint=tmp_path)
