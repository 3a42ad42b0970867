"""Every verb × its law: the example of its page, and generated networks. A new verb is tested as soon as its file exists."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import netxform as nx
from netxform import verbs
from netxform.compiler.measure import tensors
from netxform.language.laws import Contract
from netxform.language.verb import REGISTRY, verb
from tests.strategies import networks

verbs.load()

# verbs that rightly promise nothing of the network, and why
PROMISES_NOTHING = {
    "compare": "it runs variants beside the spec; the network is handed on as it is, and what they gave is no claim about it",
    "keep": "it sets the trainings of its stage, and these claim what they did",
    "record": "it sets the trainings of its stage, which are the same with and without it",
}
# every other verb on a generated network, as the last statement
STATEMENTS = {
    "adapt": "adapt stem with lora rank=1",
    "attach": "attach extra after stem classes=2",
    "cast": "cast float16",
    "cut": "cut at stem",
    "deepen": "deepen stem",
    "distill": "snapshot t; distill from t for 1epochs",
    "factorize": "factorize stem rank=1",
    "features": "features at stem",
    "freeze": "freeze stem",
    "init": "snapshot t; init stem from t",
    "merge": "adapt stem with lora rank=1; merge stem",
    "prune": "prune amount=30%",
    "remove": "deepen stem; remove stem_deeper",
    "snapshot": "snapshot t",
    "train": "train head for 1epochs",
    "unfreeze": "freeze stem; unfreeze stem",
    "widen": "widen stem x2",
}


def stands(claim: dict[str, Any]) -> bool:
    """Whether a claim held when it was made; a later statement may have changed what it speaks of."""
    return claim["held"] or bool(claim["vacuous"]) or (claim["made"] or {}).get("held", claim["superseded_by"] is not None)


def of(word: str, certificate: dict[str, Any]) -> list[dict[str, Any]]:
    """What the certificate says of the verb's own statements, each looked at: contract, claims, verdicts."""
    own = [s for s in certificate["statements"] if s["verb"] == word]
    assert own
    for statement in own:
        assert statement["contract"] == REGISTRY[word].cls.contract.value
        promised = bool(statement["claims"]) or bool(statement["nothing"])
        assert promised == (word not in PROMISES_NOTHING), statement
        assert all(stands(c) for c in statement["claims"])
    return own


def test_who_promises_nothing_is_known_by_name() -> None:
    assert set(PROMISES_NOTHING) == {w for w, e in REGISTRY.items() if e.cls.contract is Contract.NONE}
    assert set(STATEMENTS) == set(REGISTRY) - set(PROMISES_NOTHING)


@pytest.mark.parametrize("word", sorted(REGISTRY))
def test_the_example_of_every_page_is_certified(word: str) -> None:
    entry = REGISTRY[word]
    found = re.search(r"Example: (.*?)\n\n", entry.doc + "\n\n", re.S)
    assert found is not None
    text = found.group(1).replace("\n", " ")
    assert re.search(rf"\b{word}\b", text)
    result = nx.apply(text)
    claims = [c for s in result.certificate["statements"] for c in s["claims"]]
    assert all(stands(c) for c in claims)
    assert claims or any(s["nothing"] for s in result.certificate["statements"])
    of(word, result.certificate)


@pytest.mark.parametrize("word", sorted(STATEMENTS))
def test_every_verb_keeps_its_law_on_generated_networks(word: str) -> None:
    kinds: set[str] = set()

    @given(networks())
    @settings(max_examples=3)
    def keeps(model: nn.Module) -> None:
        x, y = torch.randn(40, 2, 5, 5), torch.arange(40) % 3
        result = nx.apply(STATEMENTS[word], model=model, example_inputs=x[:1], data=(x, y))
        own = of(word, result.certificate)
        assert own[-1] is result.certificate["statements"][-1]
        made = [c["kind"] for c in own[-1]["claims"]]
        wanted = [c.kind for c in result.plan.steps[-1].claims if c.kind not in own[-1]["nothing"]]
        assert [k for k in made if k in wanted] == wanted
        kinds.update(c["kind"] for c in own[-1]["claims"])

    keeps()
    assert kinds


def test_a_law_of_nothing_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY["freeze"].cls, "law", lambda self, choice: ())
    result = nx.apply("model net = zoo.mlp()\nfreeze fc1; snapshot t")
    with pytest.raises(AssertionError):
        of("freeze", result.certificate)
    assert of("snapshot", result.certificate)


@given(networks(), st.sampled_from(["stem", "parts.0", "parts.0.1", "head"]), st.sampled_from(["at", "after"]))
@settings(max_examples=20)
def test_cut_gives_the_value_at_that_point(model: nn.Module, place: str, word: str) -> None:
    x = torch.randn(3, 2, 5, 5)
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(place).register_forward_hook(lambda m, i, o: seen.append(o))
    model(x)
    handle.remove()
    before = copy.deepcopy(model.state_dict())
    result = nx.apply(f"cut {word} {place}", model=model, example_inputs=torch.randn(1, 2, 5, 5))
    assert torch.equal(result.model(x), seen[0])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    # what remains is needed: every parameter gets a gradient
    result.model(x).sum().backward()
    assert all(p.grad is not None for p in result.model.parameters())


@given(networks(), st.integers(2, 5))
@settings(max_examples=10)
def test_attach_keeps_earlier_outputs(model: nn.Module, classes: int) -> None:
    x = torch.randn(3, 2, 5, 5)
    with torch.no_grad():
        wanted = model(x)
        result = nx.apply(f"attach extra after stem classes={classes}", model=model, example_inputs=x)
        found = result.model(x)
    assert torch.equal(found["output"], wanted)
    assert found["extra"].shape == (3, classes)


@given(networks())
@settings(max_examples=10)
def test_freeze_holds_under_any_training_loop(model: nn.Module) -> None:
    x = torch.randn(4, 2, 5, 5)
    module = nx.apply("freeze stem | parts", model=model, example_inputs=x).model
    frozen = {n: t.clone() for n, t in tensors(module).items() if n.startswith(("stem", "parts"))}
    with torch.no_grad():
        assert torch.equal(module.eval()(x), model(x))
    module.train()  # what a plain loop does
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(x + 1).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(t, tensors(module)[n]) for n, t in frozen.items())
    again = nx.apply("unfreeze **", model=module, example_inputs=x).model
    assert all(p.requires_grad for p in again.parameters())
    assert {type(m) for m in again.modules()} >= {nn.BatchNorm2d}


@given(networks(), st.sampled_from(["head", "head | parts", "stem"]))
@settings(max_examples=8)
def test_training_changes_what_is_selected_and_nothing_else(model: nn.Module, selection: str) -> None:
    x, y = torch.randn(40, 2, 5, 5), torch.arange(40) % 3
    before = {n: t.clone() for n, t in tensors(model).items()}
    result = nx.apply(
        f"train {selection} for 2epochs using sgd(lr=0.05) batch=8", model=model, example_inputs=x[:1], data=(x, y)
    )
    after = tensors(result.model)
    chosen = tuple(selection.split(" | "))
    for name, tensor in before.items():
        if not name.startswith(chosen):
            assert torch.equal(tensor, after[name]), name
    # behind rectifiers that are all off no gradient arrives, and nothing can move
    loss = nn.functional.cross_entropy(model(x), y)
    reached = torch.autograd.grad(loss, [p for n, p in model.named_parameters() if n.startswith(chosen)])
    if any(bool(g.abs().max() > 1e-6) for g in reached):
        assert any(not torch.equal(t, after[n]) for n, t in before.items())
    assert all(torch.equal(t, tensors(model)[n]) for n, t in before.items())


def test_same_seed_same_bits() -> None:
    text = 'model net = zoo.smallcnn() input="1x1x8x8"\ndata d = sklearn.digits(train=100)\ntrain ** for 2epochs'
    first, second, other = (nx.apply(text, seed=s).model for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_verb_that_lacks_a_duty_is_refused_at_import() -> None:
    from dataclasses import dataclass

    with pytest.raises(TypeError, match="lacks"):

        @verb("nothing")
        @dataclass(frozen=True)
        class Nothing:
            """Nothing."""

    assert "nothing" not in REGISTRY


def test_the_result_is_ordinary() -> None:
    text = "model net = zoo.resnet_small()\ncut at layer3; freeze body; attach head classes=3"
    module = nx.apply(text).model
    x = torch.randn(2, 1, 28, 28)
    copied = copy.deepcopy(module)
    copied.load_state_dict(module.state_dict())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(copied(x), module(x))
        exported = torch.export.export(module, (x,))
        assert torch.allclose(exported.module()(x), module(x), atol=1e-6)
