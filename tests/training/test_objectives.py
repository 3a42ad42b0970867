"""Objectives as data: penalties, heads, mixup and augmentation, losses on values and sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.graph.activations import activation_nodes
from netxform.graph.layer_spec import Invocation
from netxform.language.work import Penalty, Training
from netxform.training.augment import augment, partners
from netxform.training.data import Batch, steps
from netxform.training.objective import Objective, View, size
from netxform.training.taps import Student
from netxform.zoo import build

TEXT = 'model net = zoo.smallcnn(width=8) input="1x1x8x8"\ndata d = sklearn.digits(train=128)\n'


def work_of(text: str) -> Training:
    return nx.plan(TEXT + text).steps[-1].choice.work


# --- penalties -------------------------------------------------------------------------------------------------------


def test_activations_lie_behind_the_nonlinearity() -> None:
    network = nx.capture(build("resnet_small"), torch.zeros(1, 1, 28, 28))
    graph = {n.name: n for n in network.module.graph.nodes}
    for path in ("conv1", "layer1.0.conv1", "layer1.0.conv2"):  # the last one through the sum of the branch
        (name,) = activation_nodes(network, [path])
        assert "relu" in name
        assert graph[name].meta["shape"][1] == 16
    assert activation_nodes(network, ["fc"]) == ()
    every = activation_nodes(network, [n for n, _ in network.module.named_modules()])
    assert len(every) == sum("relu" in n for n in graph)


def test_a_functional_nonlinearity_is_found() -> None:
    network = nx.capture(build("mlp"), torch.zeros(1, 1, 28, 28))
    assert len(activation_nodes(network, ["fc1", "fc2", "fc"])) == 2


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.sampled_from(["l1", "l2"]))
@settings(max_examples=15)
def test_a_penalty_counts_units_and_neither_samples_nor_positions(n: int, c: int, side: int, norm: str) -> None:
    row = torch.rand(1, c)
    one = size(row, norm)
    assert torch.allclose(size(row.expand(n, c), norm), one)
    assert torch.allclose(size(row.view(1, c, 1, 1).expand(n, c, side, side), norm), one)
    assert torch.allclose(size(row.view(1, 1, c).expand(n, side, c), norm), one)
    assert torch.allclose(one, row.abs().sum() if norm == "l1" else 0.5 * row.square().sum())


def test_penalties_have_the_gradient_that_autograd_finds() -> None:
    work = work_of("train ** for 1epochs regularize l1(activations(conv1 | conv2), 1e-2)")
    network = nx.capture(build("smallcnn", width=8), torch.zeros(1, 1, 8, 8))
    network.module.eval()
    student = Student(network.module, work)
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6)
    places = torch.arange(6)
    batch = Batch(x, y, places, places, places, 6)
    loss = Objective(work)(student(x), View(x, y), batch)
    seen: list[Tensor] = []
    model = network.module
    handles = [model.get_submodule(n).register_forward_hook(lambda m, i, o: seen.append(o)) for n in ("bn1", "bn2")]
    plain = nn.functional.cross_entropy(model(x), y)
    for handle in handles:
        handle.remove()
    wanted = plain + 1e-2 * sum(v.relu().sum(1).mean() for v in seen)
    assert torch.allclose(loss, wanted)


def test_penalties_on_parameters_shrink_them() -> None:
    without = "train ** for 2epochs using sgd(lr=0.1)"
    text = without + " regularize {}"
    plain, bare = (nx.apply(TEXT + t).model for t in (without, text.format("l2(fc1::weight, 0.5)")))
    # eight steps, each of which takes 0.1 · 0.5 of the weights; what else moves them is small
    assert (bare.fc1.weight.norm() / plain.fc1.weight.norm()).item() == pytest.approx(0.95**8, rel=0.1)
    sparse = nx.apply(TEXT + text.format("l1(fc1::weight, 0.5)")).model
    assert sparse.fc1.weight.abs().mean() < 0.5 * plain.fc1.weight.abs().mean()  # eight steps of 0.05 towards zero
    assert work_of(text.format("l1(fc1::weight, 0.5)")).penalties == (Penalty("l1", 0.5, parameters=("fc1.weight",)),)


def test_weight_decay_by_selection_is_the_optimizers() -> None:
    text = "train ** for 1epochs regularize weight_decay(fc1::weight | fc::weight, 0.1) { group fc lr=1e-4 }"
    found = {g.parameters: g.settings for g in work_of(text).groups}
    assert found == {
        ("fc1.weight",): {"weight_decay": 0.1},
        ("fc.weight",): {"lr": 1e-4, "weight_decay": 0.1},
        ("fc.bias",): {"lr": 1e-4},
    }
    with pytest.raises(nx.NetxformError) as caught:
        work_of("train ** for 1epochs regularize [weight_decay(fc, 0.1), weight_decay(fc, 0.2)]")
    assert caught.value.diagnostics[0].code == "X0407"


def test_a_penalty_on_activations_makes_units_silent() -> None:
    text = 'model net = zoo.mlp(inputs=64, width=128) input="1x1x8x8"\ndata d = sklearn.digits()\n'

    def dead(clause: str) -> tuple[float, float]:
        result = nx.apply(text + f"train ** for 25epochs using adamw(lr=5e-3) {clause}")
        from sklearn.datasets import load_digits

        x = torch.as_tensor(load_digits().images / 16.0, dtype=torch.float32)[:, None]
        hidden = result.model.fc1(x.flatten(1)).relu()
        second = result.model.fc2(hidden).relu()
        silent = torch.cat([hidden.amax(0), second.amax(0)]) == 0
        return float(silent.float().mean()), result.metrics["test_accuracy"]

    before, accuracy = dead("")
    after, penalised = dead("regularize l1(activations(**), 1e-2)")
    assert after > max(0.4, before + 0.2)
    assert penalised > accuracy - 0.01


# --- heads, values, sequences ----------------------------------------------------------------------------------------


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.sign = nn.Linear(16, 2)
        self.value = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.body(x).tanh()
        return {"sign": self.sign(hidden), "value": self.value(hidden)}


class PairedHeads(TwoHeads):
    def __init__(self) -> None:
        super().__init__()
        self.sign = nn.Linear(16, 1)


def test_heads_are_trained_together() -> None:
    x = torch.randn(200, 4)
    y = torch.stack([(x[:, 0] > 0).float(), x[:, 1]], 1)
    text = "train ** for 40epochs using adam(lr=1e-2) {{ head value loss=mse target=1 weight=2; {} }}"
    only = nx.apply(text.format(""), model=TwoHeads(), example_inputs=x[:1], data=(x, y))
    assert only.metrics["test_r2"] > 0.9
    result = nx.apply(text.format("head sign loss=mse target=0"), model=PairedHeads(), example_inputs=x[:1], data=(x, y))
    assert result.metrics["test_value_r2"] > 0.9
    assert result.metrics["test_sign_r2"] > 0.3
    labels = torch.stack([(x[:, 0] > 0).long(), (x[:, 1] > 0).long()], 1)
    both = nx.apply(
        "train ** for 40epochs using adam(lr=1e-2) { head sign target=0 }",
        model=TwoHeads(),
        example_inputs=x[:1],
        data=(x, labels),
    )
    assert both.metrics["test_accuracy"] > 0.85


def test_sequences_are_learned_token_by_token() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(12, 8)
            self.gru = nn.GRU(8, 16, batch_first=True)
            self.out = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(self.embed(x))[0])

    x = torch.randint(0, 12, (160, 7))
    y = x % 3
    result = nx.apply("train ** for 15epochs using adam(lr=2e-2)", model=Tagger(), example_inputs=x[:1], data=(x, y))
    assert result.metrics["test_accuracy"] > 0.9


# --- views -----------------------------------------------------------------------------------------------------------


@given(st.integers(2, 9), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=20)
def test_views_do_not_depend_on_the_number_of_processes(count: int, world: int, seed: int) -> None:
    data = torch.utils.data.TensorDataset(torch.rand(count, 1, 6, 6), torch.arange(count))
    calls = tuple(Invocation(n, a) for n, a in (("shift", (2,)), ("flip", ()), ("noise", (0.1,)), ("scale", ()), ("erase", ())))

    def seen(rank: int, world: int) -> dict[int, Tensor]:
        ((batch,),) = steps(data, count, shuffle=(seed, 1), rank=rank, world=world)
        x = augment(batch.x, calls, batch, torch.Generator().manual_seed(seed))
        return dict(zip(batch.places.tolist()[: batch.live], x, strict=False))

    alone = seen(0, 1)
    shared = {k: v for rank in range(world) for k, v in seen(rank, world).items()}
    assert shared.keys() == alone.keys()
    assert all(torch.equal(v, alone[k]) for k, v in shared.items())


def test_augmentations_move_what_they_say() -> None:
    x = torch.zeros(64, 1, 7, 7)
    x[:, :, 3, 3] = 1
    places = torch.arange(64)
    batch = Batch(x, places, places, places, places, 64)
    moved = augment(x, (Invocation("shift", (2,)),), batch, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(64))
    reached = moved.amax((0, 1)).nonzero()
    assert reached.min() == 1 and reached.max() == 5
    erased = augment(torch.ones(64, 1, 8, 8), (Invocation("erase", (0.5,)),), batch, torch.Generator().manual_seed(0))
    assert 0 < float((erased == 0).float().mean()) <= 0.3
    share, partner = partners(batch, 0.4, torch.Generator().manual_seed(1))
    assert 0 <= share <= 1 and sorted(partner.tolist()) == places.tolist()


def test_accumulated_pieces_make_the_same_step() -> None:
    x, y = torch.randn(40, 4), torch.arange(40) % 3
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    text = "train ** for 2epochs batch=16 accumulate={} using sgd(lr=0.1)"
    one, four = (nx.apply(text.format(n), model=model, example_inputs=x[:1], data=(x, y)) for n in (1, 4))
    assert one.histories[0][1].steps == four.histories[0][1].steps
    for a, b in zip(one.model.parameters(), four.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
