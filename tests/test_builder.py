"""Python parity: the builder makes the tree of the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import netxform as nx
from netxform.syntax import ast


def test_the_builder_makes_the_tree_of_the_text() -> None:
    text = """
xform 1
model net = zoo.smallcnn() input="1x1x8x8"
data few = sklearn.digits(classes=[5, 6], per_class=10)
param rate: float = 1e-3 in [1e-6, 1]
let late = layer4 | fc
cut at layer4 drops=[fc, fc1, avgpool, dropout]
freeze body bn=eval
attach head after layer4 { flat = Flatten(); out = Linear(auto, 2) }
widen conv3 x2
stage full {
  train ** for 5epochs on few using adamw(lr=$rate)
  keep best by val_loss
}
assert params < 1Mparams, "small"
"""
    s = nx.spec("xform 1")
    s.model("net", "zoo.smallcnn()", input="1x1x8x8")
    s.data("few", "sklearn.digits(classes=[5, 6], per_class=10)")
    s.param("rate", 1e-3, type="float", domain=[1e-6, 1])
    s.let("late", "layer4 | fc")
    s.cut(at="layer4", drops=["fc", "fc1", "avgpool", "dropout"]).freeze("body", bn="eval")
    s.attach("head", after="layer4", block={"flat": "Flatten()", "out": "Linear(auto, 2)"})
    s.widen("conv3", x=2)
    with s.stage("full"):
        s.train("**", for_="5epochs", on="few", using="adamw(lr=$rate)")
        s.keep("best", by="val_loss")
    s.check_that("params < 1Mparams", "small")
    assert s.tree() == nx.parse(text)
    assert nx.parse(str(s)) == s.tree()
    assert nx.spec(text).tree() == nx.parse(text)


@given(st.lists(st.sampled_from(["layer4", "layer{1..3}.**:Conv2d", "a | b - c", "**"]), min_size=1), st.floats(0.001, 1))
def test_what_is_built_can_be_read(selections: list[str], rate: float) -> None:
    s = nx.spec()
    for selection in selections:
        s.freeze(selection)
    s.train("**", for_="3epochs", using=ast.Call("sgd", (ast.Argument("lr", ast.Number(rate)),)))
    assert nx.parse(str(s)) == s.tree()
