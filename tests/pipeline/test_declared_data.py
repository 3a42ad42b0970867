"""Data that a spec names, through plan, training and certificate: what is known early, what is counted, the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import netxform as nx
from netxform.training.protocol import Quiet
from tests.sources.odd_files import encoded, photos

pytest.importorskip("torchvision")

NET = 'model net = zoo.smallcnn(channels=3, classes=2, width=4) input="1x3x8x8"\n'
TRAIN = NET + "data d = {}\ntrain ** for 2epochs on d using adamw(lr=1e-2) batch=3 augment=[flip, shift(1)]\n"


def tensors(folder: Path) -> dict[str, bytes]:
    found = nx.load(folder)
    return {n: t.numpy().tobytes() for n, t in found.state_dict().items()}


def apply(root: Path, text: str, out: str, **more: object) -> nx.api.Result:
    return nx.apply(text, root=root, out=root / out, **more)


def test_a_head_has_the_classes_of_the_folder(tmp_path: Path) -> None:
    source = photos(tmp_path, classes=("cat", "dog", "emu"))
    plan = nx.plan(f"model net = torchvision.resnet18()\ndata d = {source}\ncut before fc\nattach head\n", root=tmp_path)
    assert plan.steps[-1].after.params - plan.steps[-1].before.params == 512 * 3 + 3
    assert any("3 classes (`cat`, `dog`, `emu`)" in n for n in plan.notes)


def test_another_number_of_classes_is_refused_while_planning(tmp_path: Path) -> None:
    source = photos(tmp_path, classes=("cat", "dog", "emu"))
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(TRAIN.format(source), root=tmp_path)
    assert caught.value.diagnostics[0].code == "X0317"


def test_a_model_of_a_library_costs_what_it_costs_on_the_data(tmp_path: Path) -> None:
    source = photos(tmp_path)
    text = "model net = torchvision.resnet18({})\ndata d = {}\ncut before fc\nattach head\n"
    macs = [
        nx.plan(text.format("", source.replace("size=8", f"size={s}")), root=tmp_path).items[0].before.macs for s in (32, 64)
    ]
    assert 3.5 < macs[1] / macs[0] < 4.5


def test_the_normalisation_of_the_model_is_in_the_certificate(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    source = photos(tmp_path).replace(")", ", normalize=model)")
    text = f"model net = timm.resnet18()\ndata d = {source}\ncut before fc\nattach head\ntrain head for 1steps on d batch=2\n"
    made = apply(tmp_path, text, "out")
    assert "timm states of `resnet18`: mean 0.485, 0.456, 0.406" in json.dumps(made.certificate, ensure_ascii=False)
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(TRAIN.format(source), root=tmp_path)
    assert caught.value.diagnostics[0].code == "X0406" and caught.value.diagnostics[0].span.line == 2


def test_damaged_files_are_named_or_left_out_and_counted(tmp_path: Path) -> None:
    source = photos(tmp_path, {"cat/cut.png": encoded()[:130], "dog/none.png": b""})
    for workers in (0, 2):
        with pytest.raises(nx.NetxformError) as caught:
            apply(tmp_path, TRAIN.format(source.replace(")", f", workers={workers}, val=0, test=0)")), "out")
        assert caught.value.diagnostics[0].code == "X0862" and "none.png" in str(caught.value)
    (tmp_path / "p" / "dog" / "none.png").unlink()
    for workers in (0, 2):  # its head is whole: it is met when it is decoded, in a worker
        with pytest.raises(nx.NetxformError) as caught:
            apply(tmp_path, TRAIN.format(source.replace(")", f", workers={workers}, val=0, test=0)")), "out")
        assert caught.value.diagnostics[0].code == "X0862" and "cat/cut.png" in str(caught.value)
        assert caught.value.diagnostics[0].span.line == 2
    made = apply(tmp_path, TRAIN.format(source.replace(")", ", bad=skip)")), "out")
    assert "1 damaged file is left out: `cat/cut.png`" in json.dumps(made.certificate)


class Killed(Quiet):
    """Ends the run behind the first epoch."""

    def epoch(self, told: object) -> None:
        raise KeyboardInterrupt


def test_one_seed_the_same_bytes_with_any_number_of_workers_and_after_a_kill(tmp_path: Path) -> None:
    source = photos(tmp_path, {f"cat/{i}.png": encoded(10 + i) for i in range(4, 9)})
    found = []
    for workers in (0, 1, 3):
        text = TRAIN.format(source.replace(")", f", workers={workers})"))
        apply(tmp_path, text, f"out{workers}")
        found.append(tensors(tmp_path / f"out{workers}"))
    assert found[0] == found[1] == found[2]
    text = TRAIN.format(source.replace(")", ", workers=2)"))
    with pytest.raises(KeyboardInterrupt):
        apply(tmp_path, text, "killed", progress=Killed())
    apply(tmp_path, text, "killed", resume=True)
    assert tensors(tmp_path / "killed") == found[0]


def test_transforms_of_colours_see_images_before_they_were_normalised() -> None:
    from netxform.graph.layer_spec import Invocation
    from netxform.training.augment import augmented
    from netxform.training.data import Batch

    rows = torch.arange(4)
    x = torch.rand(4, 3, 8, 8)
    calls = (Invocation("ColorJitter", (0.5, 0.5)), Invocation("RandAugment"), Invocation("flip"))
    normal = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in normal)
    plain, _ = augmented(x, (), calls[:1], Batch(x, rows, rows, rows, rows, 4), torch.Generator().manual_seed(0))
    batch = Batch((x - mean) / std, rows, rows, rows, rows, 4)
    seen, _ = augmented((x - mean) / std, (), calls[:1], batch, torch.Generator().manual_seed(0), normal)
    assert torch.allclose(seen, (plain - mean) / std, atol=1e-5)
    augmented((x - mean) / std, (), calls, batch, torch.Generator().manual_seed(0), normal)


def test_masks_are_learnt(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("i", "m"):
        (tmp_path / name).mkdir()
    for i in range(12):
        mask = torch.zeros(8, 8, dtype=torch.uint8)
        mask[:, : 1 + i % 7] = 255
        Image.fromarray(mask.numpy()).convert("RGB").save(tmp_path / "i" / f"{i}.png")
        Image.fromarray(mask.numpy()).save(tmp_path / "m" / f"{i}.png")
    model = torch.nn.Conv2d(3, 2, 1)
    text = (
        'data d = folder("i", masks="m", values=[0, 255], size=8)\n'
        "train ** for 20epochs on d using adamw(lr=0.3) batch=4 metrics=[iou] augment=[flip]\n"
    )
    made = nx.apply(text, model=model, example_inputs=(torch.zeros(1, 3, 8, 8),), root=tmp_path)
    assert made.metrics["test_iou"] > 0.95


def test_a_function_of_the_users_under_trust(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef make():\n    x = torch.arange(40.).view(20, 2)\n    return x, (x[:, 0] > 20).long()\n"
    )
    text = 'model net = zoo.mlp(inputs=2, classes=2, width=4) input="1x2"\ndata d = "mine.py:make" val=10%\n'
    text += "train ** for 1epochs on d batch=4\n"
    with pytest.raises(nx.NetxformError) as caught:
        apply(tmp_path, text, "out")
    assert caught.value.diagnostics[0].code == "X0902"
    made = apply(tmp_path, text, "out", trust_code=True)
    assert "test_accuracy" in made.metrics
