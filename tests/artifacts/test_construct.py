"""What a bundle holds of layers and tensors that torch knows and files do not at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import netxform as nx


class Rotary(nn.Module):
    """Turns pairs of features by angles that a complex buffer holds."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.l = nn.Linear(8, 8)
        self.register_buffer("turns", torch.polar(torch.ones(4), torch.arange(4.0)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.view_as_complex(self.l(x).reshape(x.shape[0], 4, 2)) * self.turns
        return torch.view_as_real(turned).flatten(1)


def test_complex_buffers_are_stored(tmp_path: Path) -> None:
    model, x = Rotary().eval(), torch.randn(2, 8)
    nx.apply("freeze **", model=model, example_inputs=(x,), out=tmp_path / "b")
    assert nx.verify(tmp_path / "b").held
    with torch.no_grad():
        assert torch.equal(nx.load(tmp_path / "b")(x), model(x))


def test_a_dtype_that_no_file_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nx.NetxformError, match=r"X0820.*complex128"):
        nx.apply("freeze **", model=Rotary(torch.complex128).eval(), example_inputs=(torch.randn(2, 8),), out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("labels", [{"type": "Upsample"}, {"i": 3, "f": -1, "type": "x", "half": 2.0}, {"float": (1, 2)}])
def test_labels_that_frameworks_hang_on_layers_are_no_matter(labels: dict[str, object], tmp_path: Path) -> None:
    up = nn.Upsample(None, 2, "nearest")
    for key, value in labels.items():
        setattr(up, key, value)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), up).eval()
    nx.apply("freeze **", model=model, example_inputs=(torch.randn(2, 3, 4, 4),), out=tmp_path / "b")
    assert nx.verify(tmp_path / "b").held


def test_an_argument_that_was_changed_is_told(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    model[0].padding_mode, model[0].transposed = "zeros", True
    with pytest.raises(nx.NetxformError, match=r"X0820.*transposed"):
        nx.apply("freeze **", model=model, example_inputs=(torch.randn(2, 3, 4, 4),), out=tmp_path / "b")
