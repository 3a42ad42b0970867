"""Claims: what a statement promises, as data. How each is measured is in `compiler/claims/`, a family a file. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class SameValue:
    """Claim: the value of `node` is, bit for bit, the value that it had before."""

    node: str
    kind: Literal["same value"] = "same value"


@dataclass(frozen=True, slots=True)
class SameOutputs:
    """Claim: the named outputs are bit-equal before and after (all of them where `names` is None)."""

    names: tuple[str | None, ...] | None = None
    kind: Literal["same outputs"] = "same outputs"


@dataclass(frozen=True, slots=True)
class SameFunction:
    """Claim: the outputs are the same in real arithmetic, up to what `noise` (a relative width) was added."""

    noise: float = 0.0
    kind: Literal["same function"] = "same function"


@dataclass(frozen=True, slots=True)
class FrozenInTraining:
    """Claim: in `train()` mode these buffers do not move, and these parameters get no gradient."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    kind: Literal["frozen in training"] = "frozen in training"


@dataclass(frozen=True, slots=True)
class Untouched:
    """Claim: after the work, every tensor that is not named in `trained` has the same bits as before."""

    trained: tuple[str, ...]
    kind: Literal["untouched"] = "untouched"


@dataclass(frozen=True, slots=True)
class ZerosHeld:
    """Claim: in these tensors every element that was zero is zero."""

    tensors: tuple[str, ...]
    kind: Literal["zeros held"] = "zeros held"


@dataclass(frozen=True, slots=True)
class Sparse:
    """Claim: these tensors have so many zeros; with `pattern`, two in every four neighbours along the inputs."""

    tensors: tuple[str, ...]
    zeros: int
    pattern: bool = False
    kind: Literal["sparse"] = "sparse"


@dataclass(frozen=True, slots=True)
class WithinBound:
    """Claim: the outputs differ from those before by at most `bound`, relative to their largest value."""

    bound: float
    kind: Literal["within bound"] = "within bound"


@dataclass(frozen=True, slots=True)
class Rounded:
    """Claim: each number of these tensors is the one of `dtype` that is nearest to what it was, and none became infinite."""

    tensors: tuple[str, ...]
    dtype: Literal["float16", "bfloat16"]
    kind: Literal["rounded"] = "rounded"


@dataclass(frozen=True, slots=True)
class Quantized:
    """Claim: each number of these weights moved by at most half a step of its row, and is stored as int8.

    `tensors`: the new weights and their steps, by name.
    """

    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    kind: Literal["quantized"] = "quantized"


@dataclass(frozen=True, slots=True)
class Taken:
    """Claim: these tensors hold, bit for bit, what the Edit brought for them."""

    tensors: tuple[str, ...]
    kind: Literal["taken"] = "taken"


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
class LayerErrors:
    """Claim: no layer changed by more than its bound, on the inputs that are worst for it."""

    layers: tuple[LayerBound, ...]
    kind: Literal["layer errors"] = "layer errors"


@dataclass(frozen=True, slots=True)
class OutputError:
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
    kind: Literal["output error"] = "output error"


@dataclass(frozen=True, slots=True)
class MaskedTwin:
    """Claim: the network computes what it did, with the removed indices (of atoms, by name) read as zero by every reader.

    Statistics across them are taken over the rest. `mixes`: what is computed across them and has no such form; where there is
    any the difference is reported and not bounded.
    `means`: the removed indices are read as these constants: (operand, axis, name of the Edit's tensor).
    """

    removed: tuple[tuple[str, tuple[int, ...]], ...]
    mixes: tuple[str, ...] = ()
    means: tuple[tuple[str, int, str], ...] = ()
    kind: Literal["masked twin"] = "masked twin"


@dataclass(frozen=True, slots=True)
class LossChange:
    """Claim about the mean loss on calibration data: what was `predicted` of its change stands beside what it is.

    `samples` of `data` were scored on; as many others are measured too. Nothing is bounded: the contract is lossy.
    """

    data: str
    samples: int
    loss: Literal["cross_entropy", "mse"]
    predicted: float | None
    error: float | None = None
    output: str | None = None
    kind: Literal["loss change"] = "loss change"


Claim: TypeAlias = (
    SameValue
    | SameOutputs
    | SameFunction
    | FrozenInTraining
    | Untouched
    | LayerErrors
    | OutputError
    | MaskedTwin
    | LossChange
    | WithinBound
    | Rounded
    | Quantized
    | Taken
    | ZerosHeld
    | Sparse
)
