"""Claims: what a statement promises, as data. How each is measured is in `compiler/claims/`, a family a file. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Claim:
    """What a statement promises; `kind` is its name in the certificate. How it is measured is registered under that name."""

    kind: ClassVar[str]

    @property
    def nothing(self) -> bool:
        """Whether the claim speaks of nothing: such a claim is none."""
        return False


@dataclass(frozen=True, slots=True)
class SameValue(Claim):
    """Claim: the value of `node` is, bit for bit, the value that it had before."""

    node: str
    kind: ClassVar[str] = "same value"


@dataclass(frozen=True, slots=True)
class SameOutputs(Claim):
    """Claim: the named outputs are bit-equal before and after (all of them where `names` is None)."""

    names: tuple[str | None, ...] | None = None
    kind: ClassVar[str] = "same outputs"


@dataclass(frozen=True, slots=True)
class SameFunction(Claim):
    """Claim: the outputs are the same in real arithmetic, up to what `noise` (a relative width) was added."""

    noise: float = 0.0
    kind: ClassVar[str] = "same function"


@dataclass(frozen=True, slots=True)
class SameThrough(Claim):
    """Claim: what comes out for x' is, in real arithmetic, what came out for M x'.

    `input` has other channels now, along `dim`: M (old, new) says which old channel reads which new one.
    """

    input: str
    dim: int
    M: tuple[tuple[float, ...], ...]
    how: str
    kind: ClassVar[str] = "same function of old channels"


@dataclass(frozen=True, slots=True)
class Resized(Claim):
    """Claim: how far the outputs moved where an input has another size now: those for an image of the new size against those
    for the same image at the old one.
    """

    input: str
    old: tuple[int, ...]
    new: tuple[int, ...]
    kind: ClassVar[str] = "another size"


@dataclass(frozen=True, slots=True)
class TrainingGap(Claim):
    """Claim: how far the outputs move in train() mode, where new statistics were found on `samples` of `data` (or on none)."""

    data: str | None
    samples: int
    kind: ClassVar[str] = "training mode"


@dataclass(frozen=True, slots=True)
class AsStored(Claim):
    """Claim: in the network's own precision the outputs are the same up to rounding, beside a claim in real arithmetic."""

    kind: ClassVar[str] = "as stored"


@dataclass(frozen=True, slots=True)
class FrozenInTraining(Claim):
    """Claim: in `train()` mode these buffers do not move, and these parameters get no gradient."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    kind: ClassVar[str] = "frozen in training"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.parameters and not self.buffers


@dataclass(frozen=True, slots=True)
class Untouched(Claim):
    """Claim: after the work, every tensor that is not named in `trained` has the same bits as before."""

    trained: tuple[str, ...]
    kind: ClassVar[str] = "untouched"


@dataclass(frozen=True, slots=True)
class ZerosHeld(Claim):
    """Claim: in these tensors every element that was zero is zero."""

    tensors: tuple[str, ...]
    kind: ClassVar[str] = "zeros held"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.tensors


@dataclass(frozen=True, slots=True)
class Sparse(Claim):
    """Claim: these tensors have so many zeros; with `pattern`, two in every four neighbours along the inputs."""

    tensors: tuple[str, ...]
    zeros: int
    pattern: bool = False
    kind: ClassVar[str] = "sparse"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.tensors


@dataclass(frozen=True, slots=True)
class WithinBound(Claim):
    """Claim: the outputs differ from those before by at most `bound`, relative to their largest value."""

    bound: float
    kind: ClassVar[str] = "within bound"


@dataclass(frozen=True, slots=True)
class Rounded(Claim):
    """Claim: each number of these tensors is the one of `dtype` that is nearest to what it was, and none became infinite."""

    tensors: tuple[str, ...]
    dtype: Literal["float16", "bfloat16"]
    kind: ClassVar[str] = "rounded"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.tensors


@dataclass(frozen=True, slots=True)
class Quantized(Claim):
    """Claim: each number of these weights moved by at most half a step of its row, and is stored as int8.

    `tensors`: the new weights and their steps, by name.
    """

    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    kind: ClassVar[str] = "quantized"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.tensors


@dataclass(frozen=True, slots=True)
class Taken(Claim):
    """Claim: these tensors hold, bit for bit, what the Edit brought for them."""

    tensors: tuple[str, ...]
    kind: ClassVar[str] = "taken"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.tensors


@dataclass(frozen=True, slots=True)
class LayerBound:
    """What may change in one layer: ‖K − K̂‖_F of its kernel is at most `kernel`, and ‖(layer − layer′)(x)‖ at most `gain`·‖x‖.

    `how` names the bound on the gain; `size` is that of one sample at the layer's input.
    """

    path: str
    kernel: float
    gain: float
    how: str
    size: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerErrors(Claim):
    """Claim: no layer changed by more than its bound, on the inputs that are worst for it."""

    layers: tuple[LayerBound, ...]
    kind: ClassVar[str] = "layer errors"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not self.layers


@dataclass(frozen=True, slots=True)
class OutputError(Claim):
    """Claim: how far the outputs moved.

    On `samples` of `data` that no choice has seen (the first `skip` were used for choosing): a quantile that the next sample
    stays below with probability `level`, and a lower bound of the agreement of the largest output. Without data, on the
    probe inputs alone. `worst`: a bound on the 2-norm of the change for every input of norm at most `radius`, where asked for.
    """

    data: str | None = None
    skip: int = 0
    samples: int = 0
    level: float = 0.95
    worst: float | None = None
    radius: float = 0.0
    kind: ClassVar[str] = "output error"


@dataclass(frozen=True, slots=True)
class MaskedTwin(Claim):
    """Claim: the network computes what it did, with the removed indices (of atoms, by name) read as zero by every reader.

    Statistics across them are taken over the rest. `mixes`: what is computed across them and has no such form; where there is
    any the difference is reported and not bounded.
    `means`: the removed indices are read as these constants: (operand, axis, name of the Edit's tensor).
    """

    removed: tuple[tuple[str, tuple[int, ...]], ...]
    mixes: tuple[str, ...] = ()
    means: tuple[tuple[str, int, str], ...] = ()
    kind: ClassVar[str] = "masked twin"

    @property
    def nothing(self) -> bool:
        """Whether it names nothing."""
        return not any(indices for _, indices in self.removed)


@dataclass(frozen=True, slots=True)
class Bypassed(Claim):
    """Claim: the network computes what it did, with these blocks giving what they are given; bit for bit."""

    blocks: tuple[str, ...]
    kind: ClassVar[str] = "bypassed"


@dataclass(frozen=True, slots=True)
class LossChange(Claim):
    """Claim about the mean loss on calibration data: what was `predicted` of its change stands beside what it is.

    The first `skip` samples of `data` chose what went; on the next `samples`, which chose nothing, the change was predicted and
    is measured, and on as many new ones. Nothing is bounded: the contract is lossy.
    """

    data: str
    samples: int
    loss: Literal["cross_entropy", "mse", "bce"]
    predicted: float | None
    error: float | None = None
    output: str | None = None
    skip: int = 0
    kind: ClassVar[str] = "loss change"


@dataclass(frozen=True, slots=True)
class TeacherKept(Claim):
    """Claim: a teacher was in eval mode and has the bits that it had before the training."""

    kind: ClassVar[str] = "teacher"
