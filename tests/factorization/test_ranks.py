"""A rank of 1 is one; 1.0 and 100% are all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netxform as nx


@pytest.mark.parametrize(
    ("text", "rank"), [("0.5", 15), ("0.9", 27), ("1", 1), ("1.0", 30), ("100%", 30), ("50%", 15), ("30", 30), ("2.0", 2)]
)
def test_ranks_as_they_are_written(text: str, rank: int) -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(40, 30))
    x = torch.randn(3, 40)
    made = nx.apply(f"factorize .`1` rank={text} when_smaller=false", model=model, example_inputs=(x,)).model
    first = next(m for m in made.modules() if isinstance(m, nn.Linear))
    assert first.weight.shape[0] == rank


def test_a_budget_that_nothing_meets_names_the_numbers_that_were_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all factors are slower, the least is the network as it is; what slower forms would reach is said as that."""
    from netxform.factorization import factorize

    monkeypatch.setattr(factorize, "faster", lambda pick, batch: False)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4))
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply("factorize .`0` until params <= 99% of base", model=model, example_inputs=(torch.randn(3, 40),))
    (said,) = caught.value.diagnostics
    count = sum(p.numel() for p in model.parameters())
    assert said.code == "X0604"
    assert f"{count:,} is the least, {0.99 * count:,.0f}" in said.message.replace("1.35k", "1,354").replace("1.34k", "1,340")
    assert said.helps[0] == "let slower forms in: `gate=none`"
    assert "faster here" in said.message and "gate=measured" in said.notes[0]
    assert nx.apply("factorize .`0` until params <= 99% of base gate=none", model=model, example_inputs=(torch.randn(3, 40),))


@pytest.mark.parametrize("share", [90, 50, 20, 5, 1])
@pytest.mark.parametrize("passes", ["nothing", "small ranks", "all"])
def test_the_gate_is_named_where_it_is_the_reason_and_nowhere_else(
    share: int, passes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: what is said to be the least lies above the budget; `gate=none` comes first just where it is the repair."""
    from netxform.factorization import factorize

    rules = {"nothing": lambda p, b: False, "small ranks": lambda p, b: min(p.ranks) > 8, "all": lambda p, b: True}
    monkeypatch.setattr(factorize, "faster", rules[passes])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20))

    def refusal(gate: str) -> nx.NetxformError | None:
        try:
            nx.apply(f"factorize ** until params <= {share}% of base{gate}", model=model, example_inputs=(torch.randn(3, 40),))
        except nx.NetxformError as error:
            return error
        return None

    gated, free = refusal(""), refusal(" gate=none")
    assert free is None or not any("gate" in text for d in free.diagnostics for text in (d.message, *d.notes, *d.helps))
    if gated is not None:
        (said,) = gated.diagnostics
        assert said.code == "X0604"
        assert (said.helps[0] == "let slower forms in: `gate=none`") == (free is None)
