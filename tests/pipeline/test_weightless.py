"""A plan is made without weights: the same plan as with them, in little memory; where the weights are needed, it says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import netxform as nx
from netxform.api import check_spec
from netxform.graph.copies import tensors_of
from netxform.pipeline.subject import Inputs, Prepared, prepare
from netxform.sources.trust import Trust
from netxform.zoo import build

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.register_buffer("scale", torch.ones(()))
    def forward(self, x):
        return self.b(self.a(x).relu() * self.scale)

class Tied(Net):
    def __init__(self):
        super().__init__()
        self.b.weight = self.a.weight

class ByWeight(Net):
    def forward(self, x):
        return self.b(x) if self.scale > 0 else self.a(x)

class ByDevice(Net):
    def forward(self, x):
        return self.b(x) if x.device.type == "cpu" else self.a(x)

class ByOwnDevice(Net):
    def forward(self, x):
        return self.b(x) if self.a.weight.device.type == "cpu" else self.a(x)

def made_by_values():
    found = Net()
    if found.scale.item() > 0:
        found.b = nn.Linear(6, 3)
    return found

def halves():
    found = Net()
    found.a.weight.data = torch.from_numpy(found.a.weight.numpy(force=True))
    return found
"""
VERBS = "widen a x2\nfactorize b rank=2\nprune a by magnitude amount=50%\nfreeze b"
PLAIN = "freeze **\nlet every = **:Linear\nprune ** by magnitude amount=30%\nassert params > 1"


def both(text: str, folder: Path) -> tuple[Prepared, Prepared]:
    inputs = Inputs(trust=Trust(folder, code=True, pickle=True))
    spec = check_spec(text, inputs)
    return prepare(spec, inputs, weightless=True), prepare(spec, inputs)


def empty(prepared: Prepared) -> bool:
    return all(t.is_meta for t in tensors_of(prepared.network.module))


def loaded_to_plan(prepared: Prepared) -> list[str]:
    return [n for n in prepared.plan.notes if "were loaded to plan" in n]


def same(without: Prepared, whole: Prepared) -> None:
    """The two plans are one, but for what the one says of itself."""
    assert without.plan.to_dict() == whole.plan.to_dict()
    assert tuple(n for n in without.plan.notes if n not in loaded_to_plan(without)) == whole.plan.notes
    assert without.plan.warnings == whole.plan.warnings
    assert not empty(whole) and not loaded_to_plan(whole)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of every kind that needs no network."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "nets.py").write_text(CODE)
    made = build("mlp", width=8)
    save_file({n: t.clone() for n, t in made.state_dict().items()}, folder / "mlp.safetensors")
    torch.save({"state_dict": made.state_dict()}, folder / "mlp.pt")
    torch.save(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), folder / "whole.pt")
    torch.export.save(torch.export.export(nn.Sequential(nn.Linear(6, 4)).eval(), (torch.zeros(1, 6),)), folder / "net.pt2")
    nx.apply('model net = zoo.smallcnn() input="1x1x8x8"\nwiden conv1 x2', out=folder / "b")
    return folder


WITHOUT = {
    "zoo": "model net = zoo.smallcnn()\nwiden conv1 x2\ncut at layer4\nattach head classes=3",
    "timm": f"model net = timm.resnet10t()\n{PLAIN}",
    "torchvision": f"model net = torchvision.shufflenet_v2_x0_5()\n{PLAIN}",
    "a bundle": f'model net = "b"\n{PLAIN}',
    "safetensors": f'model net = zoo.mlp(width=8) weights="mlp.safetensors"\n{PLAIN}',
    "a state dict": f'model net = zoo.mlp(width=8) weights="mlp.pt"\n{PLAIN}',
    "code": f'model net = "nets.py:Net" input="1x6"\n{VERBS}',
    "code that ties": 'model net = "nets.py:Tied" input="1x6"\nfreeze a',
    "pickled": f'model net = "whole.pt" input="1x6"\n{PLAIN}',
    "a teacher": 'model net = zoo.mlp()\nmodel big = timm.resnet10t(in_chans=1, num_classes=10) input="1x1x28x28"\n'
    "data d = sklearn.digits(size=28)\ndistill from big for 1epochs on d",
    "narrower": "model net = zoo.smallcnn()\nmodel small = shrink(net, width=50%)\nfreeze **",
    "weights of another": "model net = zoo.mlp()\nmodel other = zoo.mlp()\ninit ** from other",
}


@pytest.mark.parametrize("name", WITHOUT)
def test_the_plan_is_that_of_the_model_with_its_weights(name: str, here: Path) -> None:
    without, whole = both(WITHOUT[name], here)
    same(without, whole)
    assert empty(without)
    assert not loaded_to_plan(without)
    tensors = [m.module for m in without.models._loaded.values()]  # pyright: ignore[reportPrivateUsage]
    assert all(t.is_meta for module in tensors for t in tensors_of(module)) or name == "narrower"


WITH = {
    "ByWeight": ("decides by a weight", True),
    "ByDevice": ("decides by where its input lies", True),
    "ByOwnDevice": ("decides by where its weights lie", True),
    "made_by_values": ("is built by values", True),
    "halves": ("looks at values while it is built", True),
}


@pytest.mark.parametrize("name", WITH)
def test_where_weights_decide_they_are_loaded_and_the_plan_says_why(name: str, here: Path) -> None:
    without, whole = both(f'model net = "nets.py:{name}" input="1x6"\nfreeze b', here)
    same(without, whole)
    (said,) = loaded_to_plan(without)
    assert said.startswith("net: ") and len(said) > len("net: its weights were loaded to plan: ")


def test_a_format_that_gives_the_whole_model_is_named(here: Path) -> None:
    without, whole = both('model net = "net.pt2"\nfreeze **', here)
    same(without, whole)
    assert len(loaded_to_plan(without)) == 1


@pytest.mark.parametrize("verb", ["prune saliency<1e-3", "prune ** by magnitude until params <= 60% of base",
                                  "factorize ** by rel_error <= 5%", "prune by obd amount=20% over d"])  # fmt: skip
def test_a_choice_that_hangs_on_values_is_provisional(verb: str, here: Path) -> None:
    """It is planned as an estimate with weights and without; `deep` has them."""
    text = f"model net = zoo.smallcnn()\ndata d = sklearn.digits(train=64, size=28)\n{verb}"
    without, whole = both(text, here)
    same(without, whole)
    assert any(s.choice.provisional for s in without.plan.steps)


def test_misfits_of_stored_weights_are_found_without_reading_them(here: Path) -> None:
    for text in (
        'zoo.mlp(width=9) weights="mlp.safetensors"',
        'zoo.mlp(width=9) weights="mlp.pt"',
        "timm.resnet10t(pretraind=1)",
    ):
        with pytest.raises(nx.NetxformError) as without:
            nx.plan(f"model net = {text}\nfreeze **", root=here)
        with pytest.raises(nx.NetxformError) as whole:
            nx.apply(f"model net = {text}\nfreeze **", root=here)
        assert str(without.value) == str(whole.value)


def test_what_is_imported_while_a_plan_is_made_keeps_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constants_of_nets.py").write_text("import torch\nSCALE = torch.tensor(3.0)\n")
    lines = "import torch\ndef net():\n    from constants_of_nets import SCALE\n    made = torch.nn.Linear(2, 2)\n"
    (tmp_path / "late.py").write_text(
        f"{lines}    made.weight.data.fill_(SCALE.item() if not SCALE.is_meta else 1.0)\n    return made\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = 'model net = "late.py:net" input="1x2"\nfreeze **'
    nx.plan(text, root=tmp_path, trust_code=True)
    made = nx.apply(text, root=tmp_path, trust_code=True).model
    assert torch.equal(made.weight, torch.full((2, 2), 3.0))


CHILD = """
import resource, sys
import netxform as nx
from netxform.cli import main
small, large = sys.argv[1:]
assert main(["plan", small]) == 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(["plan", large, "--max-memory", "64GiB"]) == 0
print("KIB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert main(["plan", large, "--max-memory", "1GiB"]) == 1
"""


def test_a_model_of_gigabytes_is_planned_in_little_memory(tmp_path: Path) -> None:
    """4.6 GB of weights; 200 MiB are what a hundred times smaller models take for a moment. A limit refuses it all the same."""
    (tmp_path / "small.xform").write_text(f"model net = zoo.mlp(width=300)\n{PLAIN}")
    (tmp_path / "large.xform").write_text(f"model net = zoo.mlp(width=33500)\n{PLAIN}")
    command = [sys.executable, "-c", CHILD, "small.xform", "large.xform"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "KIB" in ran.stdout, ran.stderr[-2000:]
    assert int(ran.stdout.split("KIB ")[1].split()[0]) < 200 * 1024
    assert ran.returncode == 0 and "error[X0005]" in ran.stderr
