"""An Edit: what a verb wants done to a graph, as data.

Verbs return Edits; `core/surgery` performs them. An Edit is inert and names graph nodes, modules and tensors: the same
Edit is performed on the weightless twin (planning) and on the real network (applying). What must be computed from weights
or data is computed when the choice is settled (`verb.Settles`), and travels with the Edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from netxform.core.values import Layer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Truncate:
    """Make the value of `node` the only output; remove what no output needs any more.

    `open` says that the new output is a loose end: the next head that is attached there takes its place.
    """

    node: str
    open: bool = True


@dataclass(frozen=True, slots=True)
class Append:
    """Put `layers` in sequence behind the value of `node`, in a new module `name`, and make the result an output.

    With `replace` the new output takes the place of the output that `node` was. Each new tensor is made by its
    layer's own initialisation under `seed`.
    """

    name: str
    node: str
    layers: tuple[Layer, ...]
    replace: bool
    open: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Trainable:
    """Set `requires_grad` of the named parameters; put the named BatchNorm modules in or out of frozen mode."""

    parameters: tuple[str, ...]
    value: bool
    norms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiply slices of a tensor: slice i along `axis` by factors[i]."""

    tensor: str
    axis: int
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """Draw slices of a tensor (the given positions along `axis`) from the normal distribution, as wide as the tensor.

    With `noise`, what is there is kept and noise of that relative width is added.
    """

    tensor: str
    axis: int
    positions: tuple[int, ...]
    seed: int
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Reindex:
    """Apply index maps to atoms (by name): everything of their type is gathered; then fill, then scale."""

    maps: tuple[tuple[str, tuple[int, ...]], ...]
    scales: tuple[Scale, ...] = ()
    fills: tuple[Fill, ...] = ()


@dataclass(frozen=True, slots=True)
class Insert:
    """Put `layers` in sequence behind the value of `node`, in a new module `name`, for all who read it.

    `start` says how the new tensors begin: as the identity, or as drawn with the last scale zero (a residual branch,
    whose result is added to the value).
    """

    name: str
    node: str
    layers: tuple[Layer, ...]
    start: Literal["identity", "branch"]
    seed: int


@dataclass(frozen=True, slots=True)
class InsertBlock:
    """Put a fresh copy of the residual block `path` behind it, as module `name`, its branches beginning at zero.

    `zeroed`: the tensors of the block (by their name in it) that begin at zero: the last scales of its branches.
    """

    name: str
    path: str
    zeroed: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Replace:
    """Put `layers` in sequence in the place of the layer `path`, as its children, wherever it is called.

    Their tensors are those of the Edit, by their full new name; on the twin they have shapes alone.
    """

    path: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Bias:
    """Give the named layers a bias of zeros, where they have none."""

    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """Store the named tensors in `dtype` and put casts where values of two precisions meet; outputs keep their precision."""

    tensors: tuple[str, ...]
    dtype: Literal["float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Quantize:
    """Store the weights of the named Linear and Embedding layers as int8, with a step for each row.

    The Edit's tensors are `PATH.weight` (int8) and `PATH.scale`; on the twin they have shapes alone. Tied weights stay tied.
    """

    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """Put the Edit's tensors of these names in the place of the network's, in its precision; on the twin nothing happens."""

    tensors: tuple[str, ...]


Operation: TypeAlias = (
    Truncate | Append | Trainable | Reindex | Insert | InsertBlock | Replace | Bias | Cast | Quantize | Assign
)


@dataclass(frozen=True, slots=True)
class Edit:
    """Operations in order. The empty Edit changes nothing.

    `tensors`: what was computed while the choice was settled, by name; empty on the twin.
    """

    operations: tuple[Operation, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"], compare=False, repr=False)


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

    `mixes`: what is computed across the indices, where something is; then the difference is reported and not bounded.
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


@dataclass(frozen=True, slots=True)
class Choice:
    """What `resolve` settled: shown in the plan, kept in the lock, enough for a replay without weights or data.

    `targets`: modules or tensors concerned. `values`: what was chosen, as plain data. `origins`: for each value that
    the spec did not state, where it came from. `defines`: selections that later statements may name. `removed`: modules
    that are gone afterwards. `work`: what training or fitting is asked for (see `objective`). `warnings`: what a
    reader of the plan should know. `provisional`: what the twin could not decide, in words, where something is left open;
    a choice that was settled on weights and data leaves nothing open. `tensors`: what was computed while settling, by the
    new tensor's name; the plan keeps their names alone. `metrics`: what was measured of the final network while settling.
    """

    targets: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    defines: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    removed: tuple[str, ...] = ()
    work: Any = None
    warnings: tuple[str, ...] = ()
    provisional: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"], compare=False, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict[str, float], compare=False)

    @property
    def trains(self) -> bool:
        """Whether something is trained when the statement is carried out: as its work, or between rounds."""
        from netxform.core.objective import Training

        return isinstance(self.work, Training) or bool(self.values.get("recover"))
