"""The law of capture on generated modules: graph equals model on every input, length and mode, or raises a guard.

`pytest tests/capture/test_silence.py --captures 2000 --seed 7` draws that many modules, from that seed.
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.capture.capture import capture

WIDTH = 4


class Step(nn.Module):
    """One step on (N, T, WIDTH), of the kind asked for."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__()
        self.kind, self.number = kind, number
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("seen", torch.zeros(WIDTH))
        self.count = 0
        self.last: Tensor | None = None
        self.table: dict[int, Tensor] = {}

    def extra_repr(self) -> str:
        """What a failing example shows."""
        hooks = [h.__name__ for m in (self, self.fc) for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
        return ", ".join([self.kind, str(self.number), "train" if self.training else "eval", *hooks])

    def forward(self, x):
        n = self.number
        match self.kind:
            case "layer":
                return torch.tanh(self.fc(x))
            # values
            case "any":
                return self.fc(x) if (x > n).any() else x * 2
            case "item":
                return self.fc(x) if x.mean().item() > 0 else x - 1
            case "float":
                scale = 2.0 if float(x.amax()) < n else 0.5
                return x * scale
            case "int":
                return x * int((x > 0).sum() > n)
            case "chosen":
                return x - x[x > n].sum()
            case "list":
                return x + sum(x[0, 0].tolist())
            case "order":
                return x[:, x.sum((0, 2)).argsort()]
            case "most":
                return x * max(1, int(x[0, :, 0].argmax()))
            case "none":
                mask = x[..., 0] > -n
                mask = None if mask.all() else mask
                return x if mask is None else x * mask[..., None]
            # sizes
            case "loop":
                h = x[:, 0]
                for t in range(x.shape[1]):
                    h = torch.tanh(self.fc(x[:, t]) + h)
                return x + h[:, None]
            case "unbind":
                return torch.stack([self.fc(p) * (i + 1) for i, p in enumerate(x.unbind(1))], 1)
            case "longer":
                return x[:, : x.size(1) - 1] if x.size(1) > n + 2 else self.fc(x)
            case "halves":
                half = x.shape[1] // 2
                return torch.cat([x[:, half:], x[:, :half]], 1)
            case "root":
                return x * x.shape[1] ** -0.5
            case "while":
                h, t = x, 0
                while t < x.shape[1] - n:
                    h, t = torch.tanh(self.fc(h)), t + 2
                return h
            case "places":
                return x + torch.arange(x.shape[1])[None, :, None]
            case "top":
                return x + x.topk(min(n + 1, x.shape[1]), 1).values.sum(1, keepdim=True)
            case "share":
                return x / x.numel() + x.size(1) / 3
            case "named":
                b, t, c = x.shape
                return self.fc(x.reshape(int(b), -1)[:, : int(c)])[:, None] + x.view(-1, t, c)
            case "pieces":
                return torch.cat([p * (i + 1) for i, p in enumerate(x.split(n + 1, 1))], 1)
            case "batch":
                return x.reshape(x.shape[0] * x.shape[1], -1).relu().view(x.shape[0], -1, WIDTH)
            # modes
            case "dropout":
                return F.dropout(x, 0.5, self.training)
            case "noise":
                return x + torch.randn_like(x) if self.training else x
            case "keep":
                if not self.training:
                    return x
                return x * torch.floor(0.5 + torch.rand((x.shape[0], 1, 1)))
            case "average":
                if self.training:
                    self.seen.mul_(0.5).add_(x.mean((0, 1)) * 0.5)
                return x - self.seen
            case "probability":
                k = F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if self.training else 0.0)
                return x + k
            case "two":
                return self.fc(x) if self.training else torch.relu(x)
            case "alone":
                return x if self.training else torch.tanh(x)
            # in place
            case "given_":
                x.mul_(2)
                return self.fc(x)
            case "halves_":
                a, b = x.chunk(2, -1)
                a.add_(1)
                return torch.cat([b, a], -1) + x
            case "weight_":
                with torch.no_grad():
                    self.fc.weight.clamp_(-0.4, 0.4)
                return self.fc(x)
            case "add_":
                h = self.fc(x)
                h += x
                return h
            case "view":
                h = self.fc(x)
                h[:, 0].mul_(2)
                return h
            case "set":
                h = self.fc(x)
                h[..., n % WIDTH] = 0.5
                return h + h.relu_()
            case "counter":
                self.seen += 1
                return x
            # state
            case "first":
                if self.last is None:
                    self.last = torch.ones(x.shape[1])
                return x * self.last.sum()
            case "table":
                if x.shape[1] not in self.table:
                    self.table[x.shape[1]] = torch.arange(x.shape[1])[None, :, None] * 0.1
                return x + self.table[x.shape[1]]
            case "still":
                if self.training:
                    with torch.no_grad():
                        self.seen.mul_(0.5).add_(self.fc(x).mean((0, 1)))
                return x - self.seen
            case "bound":
                with torch.no_grad():
                    self.seen = self.seen * 0.5 + x.mean((0, 1))
                return self.fc(x) + self.seen
            case "copied":
                self.seen.copy_(x.detach().amax((0, 1)))
                return x * 2
            case "calls":
                self.count += 1
                return self.fc(x)
            case "scaled":
                self.count += 1
                return x * self.count
            case "later":
                if self.training:
                    self.count += 1
                return x if self.count < 50 else x * 2
            case "kept":
                self.last = x
                return self.fc(x)
            # what is held decides
            case "weights":
                return self.fc(x) if self.fc.weight.sum() > 0 else x * 2
            case "buffer":
                if self.training:
                    self.seen.add_(0.3)
                return x if self.seen.sum() < 2 else self.fc(x)
            # kinds
            case "strides":
                return self.fc(x) if x.is_contiguous() else x * 2
            case "rank":
                return x * 2 if x.dim() > 2 else self.fc(x)
            case "turned":
                return x.transpose(1, 2).contiguous().view(x.shape[0], WIDTH, -1).transpose(1, 2)
            case "learned":
                h = self.fc(x)
                return h * 2 if h.requires_grad else h
            case "dtype":
                return self.fc(x) if x.dtype == torch.float32 else x
            case "gradients":
                return self.fc(x) * 2 if torch.is_grad_enabled() else x
            case "nothing":
                with torch.no_grad():
                    h = self.fc(x)
                return h + x
            # masks
            case "ones":
                mask = (x[..., 0] * 0 + n > 0).long()
                return x * mask[..., None] if mask.sum() < mask.numel() else self.fc(x)
            case "masked":
                mask = (x[..., 0].abs() < 4).long()
                return x if mask.all() else x * mask[..., None]
            case _:
                return x


KINDS = """layer layer any item float int none loop unbind longer halves root pieces batch dropout noise keep average
probability two add_ view set counter still bound copied calls scaled later kept dtype gradients nothing ones masked
alone given_ halves_ weight_ first table weights buffer strides rank turned learned while places top share named chosen list
order most""".split()


class Skip(nn.Module):
    """Two modules in a row, and what they were given beside them."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        h = self.first(x)
        return x + self.second(h)


def doubled(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """A hook behind a module."""
    return out * 2


def shifted(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
    """A hook before a module."""
    return (args[0] - 0.25,)


@st.composite
def modules(draw: st.DrawFn) -> nn.Module:
    """A chain of steps with hooks on some of them, some frozen in eval mode."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    steps = [Step(draw(st.sampled_from(KINDS)), draw(st.integers(0, 3))) for _ in range(draw(st.integers(1, 4)))]
    parts: list[nn.Module] = list(steps)
    if len(parts) > 1 and draw(st.booleans()):
        parts[-2:] = [Skip(*parts[-2:])]
    model = nn.Sequential(*parts).train()
    for step in steps:
        hook = draw(st.sampled_from(["", "", "", "behind", "before", "inner"]))
        if hook == "behind":
            step.register_forward_hook(doubled)
        elif hook == "before":
            step.register_forward_pre_hook(shifted)
        elif hook == "inner":
            step.fc.register_forward_hook(doubled)
        if draw(st.integers(0, 4)) == 0:
            step.eval()
    return model


def outcome(module: nn.Module, x: Tensor, gradients: bool = False) -> list[Tensor]:
    """What two calls of a copy give, one after the other, with what they were given, its tensors then, and the gradients."""
    copied = copy.deepcopy(module)
    torch.manual_seed(5)
    given_ = [x.clone(), x.clone()]
    with torch.set_grad_enabled(gradients):
        out = torch.stack([copied(t) for t in given_])
    held = copied.state_dict()
    if gradients:
        if out.requires_grad:
            out.nan_to_num().square().sum().backward()
        held |= {f"gradient of {n}": torch.zeros_like(p) if p.grad is None else p.grad for n, p in copied.named_parameters()}
    return [out.detach(), *given_, *held.values()]


def check(model: nn.Module, data: st.DataObject) -> None:
    batch, length = data.draw(st.integers(2, 3)), data.draw(st.integers(2, 5))
    x = torch.randn(batch, length, WIDTH) * data.draw(st.sampled_from([0.1, 1.0, 5.0]))
    modes = [m.training for m in model.modules()]
    before = copy.deepcopy(model.state_dict())
    try:
        network = capture(model, x)
    except nx.NetxformError as error:
        assert error.diagnostics[0].code == "X0802"
        return
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert list(network.module.state_dict()) == list(before)
    told = any("train() loses" in note for note in network.notes)
    given_ = x
    for how in ("own", "eval", "train", "mixed", "others"):
        if how in ("eval", "train"):
            model.train(how == "train")
            network.module.train(how == "train")
        elif how == "mixed":
            for path, part in model.named_modules():
                if isinstance(part, Step):
                    part.train(data.draw(st.booleans()))
                    network.module.get_submodule(path).train(part.training)
        elif how == "others":  # other weights
            others = {n: torch.randn_like(t) for n, t in before.items()}
            model.load_state_dict(others)
            network.module.load_state_dict(others)
        for _ in range(2):
            batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
            scale, shift = data.draw(st.sampled_from([0.0, 0.1, 1.0, 5.0])), data.draw(st.sampled_from([0, 3, -3]))
            given_ = torch.randn(batch, length, WIDTH) * scale + shift
            if data.draw(st.integers(0, 3)) == 0:
                given_ = data.draw(st.sampled_from([given_.mT.contiguous().mT, given_[0], given_[None]]))
            for inputs, gradients in ((x, False), (given_, False), (given_, True)):
                same_or_loud(model, network.module, inputs, gradients, told and any(m.training for m in model.modules()))


def same_or_loud(model: nn.Module, graph: nn.Module, inputs: Tensor, gradients: bool, told: bool) -> None:
    """The graph gives what the model gives, where that runs, or raises: a guard, or a shape that does not fit."""
    try:
        wanted = outcome(model, inputs, gradients)
    except Exception:
        return
    try:
        found = outcome(graph, inputs, gradients)
    except Exception:  # no silent difference
        return
    if not told:
        assert all(a.shape == b.shape for a, b in zip(wanted, found, strict=True))
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(wanted, found, strict=True))


def test_nothing_differs_silently(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> None:
    @seed(int(request.config.getoption("--seed")))
    @given(modules(), st.data())
    @settings(max_examples=int(request.config.getoption("--captures")), derandomize=False, database=None)
    def law(model: nn.Module, data: st.DataObject) -> None:
        check(model, data)

    law()
