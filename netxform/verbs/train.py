"""train: minimise a loss over data by changing the selected parameters, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from netxform.errors import Diagnostic, Span
from netxform.graph.edits import Edit
from netxform.language.choice import Choice
from netxform.language.claims import Claim
from netxform.language.laws import Contract
from netxform.language.learning import Head, Learning, Lesson, planned, trained_law
from netxform.language.methods import Loss, loss
from netxform.language.values import Count, Selection
from netxform.language.verb import Control, Role, Scope, key, lines, operand, prep, verb
from netxform.syntax import ast

if TYPE_CHECKING:
    from netxform.graph.network import Network


@verb("train")
@dataclass(frozen=True, kw_only=True)
class Train(Learning):
    """Train the selected parameters: `train SELECTION for 5epochs on DATA using adamw(lr=1e-3)`.

    Frozen tensors stay frozen, whatever is selected. Modules outside the selection keep their parameters *and* their
    running statistics. Optimizers are those of torch.optim (adamw, sgd, adafactor, …) and timm.optim (lion, muon, lamb, …),
    with
    their arguments. In a block, `group SELECTION lr=1e-5` gives some parameters settings of their own (discriminative learning
    rates); `layer_decay=0.75` makes the rate smaller by that factor from layer to layer, seen from the output.

    `batch` is the global batch, over all processes; `accumulate=4` takes it in four pieces. `output` names the head that is
    trained, where there are several; `head NAME loss=mse weight=0.5 target=1` in the block, once a head, trains them together,
    each on its column of the targets.

    Losses have settings: `loss=cross_entropy(weight=[1, 2, 3], ignore_index=0)`, `focal(gamma=2)`, `bce(pos_weight=balanced)`,
    `huber(delta=0.5)`; `netxform explain losses` lists them. Weights that are `balanced` are counted on the training part, and
    stated. Class numbers, soft targets, several labels at once, values and maps of each are compared with loss and output
    before anything is trained. `draw=balanced` draws samples so that classes come equally often. −100 marks what is left out.

    Accuracy (mean absolute error and r2 of values) is always measured; `metrics=[f1, auroc, top5]` asks for more, and so do
    `keep best by val_f1`, `assert test_iou >= 60%`, `compare … metric=test_f1`. They are those of torchmetrics, averaged over
    classes; `netxform explain metrics` lists them.

    `schedule` runs from the given rate down (`cosine`, `linear`, `polynomial(power=2)`, `cosine_restarts(cycles=3)`, …) or up
    and down (`onecycle`), after `warmup` steps. `clip` bounds the norm of the gradient. `patience` stops after so many epochs
    without a better validation loss. `keep best by …` in the stage puts the best epoch back. `ema=0.999` averages the weights:
    the average is what is measured, and the result.

    `regularize l1(activations(conv1 | conv2), 1e-4)` adds a penalty: `l1` or `l2` of `activations(…)` (behind the
    nonlinearity), of `outputs(…)` of layers, or of parameters; on values it is summed over the units and averaged over samples
    and positions. `weight_decay(fc::weight, 1e-3)` is the optimizer's own. `mixup=0.2`, `cutmix=1.0` and `augment=[shift(2),
    flip(0.5), noise(0.1), erase(0.25), scale(0.1), RandAugment(num_ops=2), RandomCrop(padding=4)]` change what is seen; the
    names of torchvision.transforms.v2 are understood, and maps of targets are moved with the pixels.

    `zeros=hold` keeps every weight that is zero when the training begins at zero, as after `prune … granularity=weight`.

    Where the model does something in training that its graph could not keep (the plan warns of it, line by line), the
    statement is refused; `lost=accept` trains what eval mode computes, with dropout and the like at work.

    `processes=2` refuses to run with another number of processes; `strategy=fsdp` shards parameters; start them by
    `torchrun --nproc-per-node 2 -m netxform apply SPEC`.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(); train ** for 1epochs on d using adamw(lr=1e-3)

    Contract: training. Everything that was not trained has the same bits afterwards; metrics are reported on data that was
    not trained on. Refused: nothing to train (X0310); data with another number of classes (X0317), or with targets that
    the loss does not take (X0351); an unknown optimizer (X0409); a model that does more in training than its graph holds
    (X0345).
    Papers: Howard, Ruder, "Universal language model fine-tuning", 2018 (discriminative rates); Loshchilov, Hutter,
    "Decoupled weight decay regularization", 2019 (AdamW); Zhang et al., "mixup", 2018; Yun et al., "CutMix", 2019; Lin et al.,
    "Focal loss", 2017.
    """

    selection: Selection = operand()
    length: Count = prep("for", MISSING)
    loss: Loss = key(loss("cross_entropy"))
    heads: tuple[Head, ...] = lines("head", Head)
    contract: ClassVar[Contract] = Contract.TRAINING
    role: ClassVar[Role] = Role.TRAINS

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """Values that the text alone shows to be wrong."""
        yield from super().validate(span)
        for head in self.heads:
            if not head.weight > 0:
                message, helps = f"`weight` is above 0, not {head.weight:g}", ("leave the line out: that head learns nothing",)
                yield Diagnostic("X0406", message, span, "weight", helps=helps)

    def control(self, kind: Control) -> Train:
        """From scratch everything is trained alike."""
        return replace(self, selection=Selection(ast.Path("**")), groups=(), lost="accept") if kind == "scratch" else self

    def resolve(self, network: Network, scope: Scope) -> Choice[Lesson]:
        """Name the tensors that will change, and settle every setting."""
        from netxform.language.fits import said_twice

        work, lesson, origins = planned(self, network, scope, self.selection, self.length, self.loss, self.heads)
        pairs = [(t.output, t.loss) for t in work.terms] or [(work.outputs[0] if work.outputs else None, work.loss)]
        warnings = tuple(dict.fromkeys(w for output, one in pairs for w in said_twice(network, output, one)))
        return Choice(lesson, (str(self.selection),), origins, work=work, warnings=warnings)

    def rewrite(self, network: Network, choice: Choice[Lesson]) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice[Lesson]) -> tuple[Claim, ...]:
        """Whatever was not trained has the same bits; zeros that are held are zeros."""
        return trained_law(choice)
