"""Selections mean what set algebra and a second reading of paths say, and refuse what matches nothing."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netxform.capture.capture import capture
from netxform.errors import NOWHERE, NetxformError
from netxform.graph.network import Network
from netxform.language.paths import glob, under
from netxform.language.selector import Removed, World, select
from netxform.syntax.parse import parse_expression
from netxform.zoo.cnn import ResNetSmall


@functools.cache
def network() -> Network:
    return capture(ResNetSmall().eval(), torch.zeros(1, 1, 8, 8))


def chosen(text: str, world: World | None = None) -> tuple[str, ...]:
    return select(parse_expression(text, "<test>"), world or World(network())).modules


def below(tops: set[str]) -> set[str]:
    names = {n for n, _ in network().module.named_modules(remove_duplicate=False)}
    return {n for n in names if any(n == t or n.startswith(t + ".") for t in tops)}


PATTERNS = ["layer1", "layer{1,2}", "layer*.0", "**.conv1", "layer3.**", "*", "layer{1..3}.0.bn*", "conv1", "**.bn2"]


def matches(pattern: list[str], path: list[str]) -> bool:
    """Segment by segment, by recursion: an oracle that knows no regular expression."""
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        return any(matches(rest, path[i:]) for i in range(1, len(path) + 1))
    return bool(path) and fits(head, path[0]) and matches(rest, path[1:])


def fits(segment: str, name: str) -> bool:
    if "{" in segment:
        before, _, inside = segment.partition("{")
        inside, _, after = inside.partition("}")
        low, dots, high = inside.partition("..")
        options = [str(i) for i in range(int(low), int(high) + 1)] if dots else inside.split(",")
        return any(fits(before + o + after, name) for o in options)
    before, star, after = segment.partition("*")
    if not star:
        return segment == name
    return name.startswith(before) and any(fits(after, name[i:]) for i in range(len(before), len(name) + 1))


def segments(pattern: str) -> list[str]:
    """The pattern cut at its dots, but for those between numbers in braces."""
    return [part.replace("\0", "..") for part in pattern.replace("..", "\0").split(".")]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_path_is_matched_segment_by_segment(pattern: str) -> None:
    names = [n for n, _ in network().module.named_modules(remove_duplicate=False) if n]
    tops = {n for n in names if matches(segments(pattern), n.split("."))}
    assert tops
    assert set(chosen(pattern)) == below(tops)


names_of = st.lists(st.sampled_from(["a", "b1", "conv", "layer2", "x"]), min_size=1, max_size=4)


@given(st.lists(st.sampled_from(["*", "a", "b*", "{a,x}", "layer{1..3}", "c*v"]), min_size=1, max_size=4), names_of)
def test_globs_agree_with_the_recursive_reading(pattern: list[str], path: list[str]) -> None:
    assert bool(glob(".".join(pattern)).fullmatch(".".join(path))) == matches(pattern, path)


@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS))
def test_operators_are_those_of_sets(left: str, right: str) -> None:
    a, b = set(chosen(left)), set(chosen(right))
    for sign, wanted in (("|", a | b), ("&", a & b), ("-", a - b)):
        if wanted:
            assert set(chosen(f"({left}) {sign} ({right})")) == wanted
        else:
            with pytest.raises(NetxformError) as caught:
                chosen(f"({left}) {sign} ({right})")
            assert caught.value.diagnostics[0].code == "X0203"


@given(st.sampled_from(PATTERNS))
def test_results_keep_the_order_of_the_network_and_name_nothing_twice(pattern: str) -> None:
    order = [n for n, _ in network().module.named_modules(remove_duplicate=False)]
    found = chosen(pattern)
    assert list(found) == sorted(set(found), key=order.index)


def test_an_empty_arm_is_an_error_unless_it_ends_in_a_question_mark() -> None:
    with pytest.raises(NetxformError) as caught:
        chosen("layer1 | nothing")
    assert caught.value.diagnostics[0].code == "X0203"
    assert chosen("layer1 | nothing?") == chosen("layer1")


def test_types_attributes_and_tensors() -> None:
    modules = dict(network().module.named_modules(remove_duplicate=False))
    convs = {n for n, m in modules.items() if isinstance(m, torch.nn.Conv2d)}
    assert set(chosen("**:Conv2d")) == convs
    strided = {n for n in convs if modules[n].stride == (2, 2)}
    assert strided and set(chosen("**:Conv2d[stride == 2]")) == strided
    found = select(parse_expression("layer1::weight", "<test>"), World(network()))
    assert not found.modules
    wanted = {n for n, _ in network().module.named_parameters() if n.startswith("layer1.") and n.endswith(".weight")}
    assert set(found.tensors) == wanted


def test_a_name_of_the_spec_is_read_first_and_never_guessed() -> None:
    world = World(network(), {"body": ("layer1", "layer2"), "layer3": ("layer1",)})
    assert set(chosen("body", world)) == {"layer1", "layer2"}
    with pytest.raises(NetxformError) as caught:
        chosen("layer3", world)
    assert caught.value.diagnostics[0].code == "X0205"
    assert chosen(".layer3", world) == chosen("layer3")


def test_what_was_removed_is_said_with_the_statement_that_did_it() -> None:
    world = World(network(), removed={"head": Removed("cut at layer3", NOWHERE)})
    with pytest.raises(NetxformError) as caught:
        chosen("head", world)
    assert caught.value.diagnostics[0].code == "X0311" and "removed `head` here" in str(caught.value)


def test_under_is_what_lies_below() -> None:
    assert set(under(network(), ["layer2"])) == below({"layer2"})
    assert set(under(network(), [""])) == {n for n, _ in network().module.named_modules(remove_duplicate=False)}
