import pytest
import torch
from safetensors.torch import save_file

from mloss.compare import LinearHead, read_head

FEATURES = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_a_head_read_back_gives_the_same_scores(tmp_path):
    bias = torch.tensor([0.5, 0.0, -1.0])
    save_file({"weight": WEIGHT, "bias": bias}, tmp_path / "head.safetensors")
    head = read_head(tmp_path / "head.safetensors")
    torch.testing.assert_close(
        head(FEATURES), FEATURES @ WEIGHT.T + bias, rtol=0, atol=0
    )


def test_a_scale_makes_it_clips_head(tmp_path):
    held = {"weight": WEIGHT, "scale": torch.tensor(100.0)}
    save_file(held, tmp_path / "head.safetensors")
    found = read_head(tmp_path / "head.safetensors")(FEATURES)
    # 3-4-5: the quotients round once.
    expected = 100 * torch.tensor([[0.6, 0.8, 1.4], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    longer = read_head(tmp_path / "head.safetensors")(4 * FEATURES)
    torch.testing.assert_close(found, longer, rtol=0, atol=0)


def test_scores_have_the_precision_of_the_features():
    assert LinearHead(WEIGHT)(FEATURES.double()).dtype == torch.float64


def test_features_of_another_width_are_named():
    with pytest.raises(ValueError, match="reads 2 features, the model gives 3"):
        LinearHead(WEIGHT)(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"bias": torch.zeros(3)}, "it has no 'weight'"),
        ({"weight": WEIGHT, "other": torch.zeros(3)}, "it has 'other'"),
        ({"weight": WEIGHT, "bias": torch.zeros(2)}, r"got the shapes .*'bias': \[2\]"),
        ({"weight": torch.zeros(3)}, "got the shapes"),
        ({"weight": torch.tensor(1.0)}, "got the shapes"),
        ({"weight": torch.zeros(0, 3)}, "got the shapes"),
        ({"weight": WEIGHT, "scale": torch.zeros(2)}, "got the shapes"),
        ({"weight": WEIGHT * torch.inf}, "not finite"),
    ],
)
def test_files_with_something_else_in_them_are_refused(tmp_path, held, message):
    save_file(held, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=message):
        read_head(tmp_path / "head.safetensors")


def test_a_file_that_is_none_or_damaged_is_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_head(tmp_path / "absent")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="text is no safetensors file"):
        read_head(tmp_path / "text")
