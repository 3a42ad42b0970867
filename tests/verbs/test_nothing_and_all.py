"""Numbers that make a statement do nothing, or take all: refused with the repair, or said in the plan."""

from __future__ import annotations

import operator
import random

import pytest

import netxform as nx
from netxform.language.limit import Limit

NET = 'model net = zoo.smallcnn() input="1x1x8x8"\ndata d = sklearn.digits(train=60)\n'
TRAIN = "train ** for 1epochs on d "
REFUSED = {
    "prune": ["conv1 by magnitude amount=0%", "conv1 by magnitude amount=0", "conv1 by magnitude amount=100%", "amount=1.0",
              "by magnitude amount=0% granularity=weight", "by magnitude amount=100% granularity=weight",
              "by magnitude amount=30% step=0", "by magnitude amount=30% least=100%", "magnitude<0 by magnitude",
              "where zeros >= 0%", "where zeros > 100%", "where zeros <= 100%", "where activation < 0",
              "where activation >= 0"],
    "widen": ["conv1 x1", "conv1 x1.0", "conv1 to 32"],
    "factorize": ["fc1 rank=0", "fc1 rank=0%", "fc1 by rel_error <= 0%", "fc1 by rel_error <= 100%", "fc1 by energy >= 0%"],
    "train": ["** for 0epochs on d", "** for 1epochs on d using sgd(lr=0)", "** for 1epochs on d { group fc1 lr=0 }",
              "** for 1epochs on d regularize l2(fc1::weight, 0)", "** for 1epochs on d label_smoothing=100%",
              "** for 1epochs on d layer_decay=0", "** for 1epochs on d { head fc2 weight=0 }", "** for 1epochs on d ema=1"],
    "remove": ["conv2 count=0"],
    "adapt": ["fc1 with lora rank=0", "fc1 with lora rank=4 alpha=0", "fc1 with lora rank=4 dropout=100%"],
    "distill": ["from t for 1epochs on d hard=100%", "from [t, u] mix=[0, 1] for 1epochs on d",
                "from t for 1epochs on d { match student.fc1 to t.fc1 weight=0 }", "from t for 1epochs on d temperature=0"],
    "cut": ["at layer4; attach head { flat = Flatten(); off = Dropout(1.0); out = Linear(auto, 10) }",
            "at layer4; attach head { flat = Flatten(); off = AlphaDropout(p=1); out = Linear(auto, 10) }"],
    "compare": ["to scratch seeds=0", "to scratch seeds=1"],
}  # fmt: skip


@pytest.mark.parametrize(("verb", "rest"), [(v, r) for v, several in REFUSED.items() for r in several])
def test_what_would_do_nothing_or_all_is_refused_with_its_repair(verb: str, rest: str) -> None:
    snapshots = "snapshot t\nsnapshot u\n" if verb == "distill" else ""
    with pytest.raises(nx.NetxformError) as error:
        nx.plan(f"{NET}{snapshots}{verb} {rest}")
    assert error.value.diagnostics[0].code in ("X0401", "X0406", "X0411", "X0109"), str(error.value)
    assert "help: " in str(error.value)


IDLE = ("until params <= 100% of base", "amount=0.001%", "amount=30% min_channels=10000", "amount=30% round_to=10000")


@pytest.mark.parametrize("text", [f"by magnitude {rest}" for rest in IDLE])
def test_what_turns_out_to_do_nothing_is_said_in_the_plan_and_behind_it(text: str) -> None:
    plan = nx.plan(f"{NET}prune {text}")
    assert any("nothing goes" in w for w in plan.steps[0].choice.warnings)
    result = nx.apply(f"{NET}prune {text}")
    assert result.plan.steps[0].idle
    assert "nothing was done" in str(result.certificate["statements"][0])


def test_a_budget_that_is_met_is_said() -> None:
    assert any("met already" in w for w in nx.plan(f"{NET}factorize ** until params <= 300% of base").steps[0].choice.warnings)
    for text in ("prune by magnitude amount=30%", "factorize ** until params <= 60% of base", "prune saliency<1e-3"):
        assert not any("nothing goes" in w or "met" in w for w in nx.plan(NET + text).steps[0].choice.warnings)


@pytest.mark.parametrize("seed", range(40))
def test_a_comparison_divides_exactly_where_some_values_keep_it(seed: int) -> None:
    """Law: it is let through where of many values in the range some fulfil it and others do not."""
    draw = random.Random(seed)
    low, high = sorted(draw.choices((-2.0, -1.0, 0.0, 0.5, 1.0, 3.0), k=2))
    if low == high:
        high += 1.0
    op, value = draw.choice(("<", "<=", ">", ">=", "==", "!=")), draw.choice((-3.0, -2.0, -1.0, 0.0, 0.5, 0.75, 1.0, 3.0, 9.0))
    compares = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
    seen = {compares[op](low + (high - low) * i / 16, value) for i in range(17)} | {
        compares[op](value, value) if low <= value <= high else compares[op](low, value)
    }
    found = list(Limit("zeros", op, value, "number").divides(low, high))  # pyright: ignore[reportArgumentType]
    assert bool(found) == (len(seen) == 1)
