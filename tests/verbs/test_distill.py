"""distill: teachers of every kind, what is claimed about them, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.compiler.measure import tensors
from netxform.training.soft import soft_loss
from netxform.training.teachers import fingerprint
from netxform.zoo import build

HEAD = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"\ndata d = sklearn.digits(train=96)\n'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETXFORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def teacher(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build("smallcnn", width=4).train()


def distilled(text: str, **models: object):
    return nx.apply(HEAD + text, models=models or {"t": teacher()})


def claims(result) -> list[str]:
    return [c["claim"] for c in result.certificate["statements"][-1]["claims"] if c["held"]]


def error(text: str, **models: object) -> str:
    with pytest.raises(nx.NetxformError) as caught:
        distilled(text, **models)
    assert caught.value.diagnostics[0].span.line > 0
    return caught.value.diagnostics[0].code


# --- laws ------------------------------------------------------------------------------------------------------------


def test_the_teacher_is_untouched_and_so_is_what_is_frozen() -> None:
    model = teacher()
    before = copy.deepcopy(model.state_dict())
    text = "freeze conv1 | bn1\ndistill from t for 2epochs"
    result = distilled(text, t=model)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    assert model.training  # it is a copy that answers
    assert any("teacher `t` untouched" in c for c in claims(result))
    fresh = nx.apply(HEAD + "freeze conv1 | bn1").model
    frozen = {n: t for n, t in tensors(fresh).items() if n.startswith(("conv1", "bn1"))}
    assert all(torch.equal(t, tensors(result.model)[n]) for n, t in frozen.items())
    assert not torch.equal(result.model.conv2.weight, fresh.conv2.weight)


def test_a_changed_teacher_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from netxform.training.teachers import Teachers

    real = Teachers.answers

    def spoil(self, *args):
        next(iter(self.given.values())).conv1.weight.data.add_(1e-3)
        return real(self, *args)

    monkeypatch.setattr(Teachers, "answers", spoil)
    assert error("distill from t for 1epochs cache=false") == "X0501"


def test_equal_teachers_are_one_teacher() -> None:
    one = distilled("distill from a for 2epochs using sgd(lr=0.05)", a=teacher()).model
    two = distilled("distill from [a, b] mix=[0.3, 0.7] for 2epochs using sgd(lr=0.05)", a=teacher(), b=teacher()).model
    gap = max((a - b).abs().max().item() for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert gap < 1e-4  # float32, and BatchNorm divides by small spreads


def test_a_student_that_is_its_teacher_stays() -> None:
    model = teacher().eval()
    before = copy.deepcopy(model.state_dict())
    x = torch.rand(64, 1, 8, 8)
    text = "freeze :BatchNorm2d\ndistill conv1 | fc from t for 2epochs hard=0 using sgd(lr=0.5)"
    result = nx.apply(text, model=model, models={"t": model}, example_inputs=x[:1], data=(x, torch.arange(64) % 10))
    # gradients of rounding errors move by rounding errors
    assert max((t - result.model.state_dict()[n]).abs().max().item() for n, t in before.items()) < 1e-5


@pytest.mark.parametrize("loss", ["kd", "ce", "logit_mse", "dist", "dkd"])
def test_every_loss_draws_the_student_to_the_teacher(loss: str) -> None:
    model = teacher().eval()
    x = torch.rand(192, 1, 8, 8)

    def gap(student: nn.Module) -> float:
        with torch.no_grad():
            z, v = student.eval()(x), model(x)
            return float(soft_loss("dist" if loss == "dist" else "kd", z, v, 4.0))

    result = nx.apply(
        f"distill from t loss={loss} hard=0 for 12epochs using adamw(lr=1e-2)",
        model=build("smallcnn", width=4),
        models={"t": model},
        example_inputs=x[:1],
        data=(x, torch.arange(192) % 10),
    )
    assert gap(result.model) < 0.7 * gap(build("smallcnn", width=4))


def test_answers_are_remembered_and_give_the_same_bytes(cache: Path) -> None:
    text = "distill from t for 2epochs"
    first = distilled(text)
    files = list(cache.glob("*.safetensors"))
    assert len(files) == 1
    again = distilled(text)
    assert all(
        torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    )
    held = files[0].read_bytes()
    files[0].write_bytes(held[:-4] + bytes(4))  # a damaged file is not believed
    third = distilled(text)
    assert all(
        torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), third.model.state_dict().values(), strict=True)
    )
    assert files[0].read_bytes() == held
    distilled("distill from t for 1epochs augment=shift(1)")
    distilled(text, t=teacher(2))
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_an_interrupted_distillation_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import netxform.training.fit as module

    text = (
        "distill from t for 3epochs augment=[shift(1), noise(0.1)] mixup=0.3 clip=1.0 schedule=cosine "
        "{ match student.layer4 to t.layer4 via conv1x1 }"
    )
    whole = nx.apply(HEAD + text, models={"t": teacher()}, out=tmp_path / "a")
    del whole
    real, calls = module._step, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        nx.apply(HEAD + text, models={"t": teacher()}, out=tmp_path / "b")
    monkeypatch.setattr(module, "_step", real)
    nx.apply(HEAD + text, models={"t": teacher()}, out=tmp_path / "b", resume=True)
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert first == second


# --- teachers of every kind ------------------------------------------------------------------------------------------


def test_a_classifier_teaches() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    result = distilled("distill from forest for 2epochs", forest=LogisticRegression(max_iter=300).fit(x / 16, y))
    assert result.metrics["teacher_val_accuracy"] > 0.8
    assert any("untouched" in c for c in claims(result))


def test_a_function_teaches_under_its_name() -> None:
    result = distilled("distill from f for 1epochs", f=lambda x: torch.zeros(len(x), 10))
    assert any("no bits to compare" in c for c in claims(result))


def test_a_bundle_and_a_stored_classifier_teach(tmp_path: Path) -> None:
    import skops.io
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    nx.apply(HEAD + "train ** for 1epochs", out=tmp_path / "taught")
    x, y = load_digits(return_X_y=True)
    skops.io.dump(LogisticRegression(max_iter=300).fit(x / 16, y), tmp_path / "linear.skops")
    text = 'model a = "taught"\nmodel b = "linear.skops"\ndistill from [a, b] for 1epochs'
    result = nx.apply(HEAD + text, root=tmp_path)
    assert {"teacher_a_val_accuracy", "teacher_b_val_accuracy", "teacher_val_accuracy"} <= set(result.metrics)


def test_code_teaches_under_trust_alone(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import torch\ndef make():\n    return lambda x: torch.zeros(len(x), 10)\n")
    text = HEAD + 'model f = "t.py:make"\ndistill from f for 1epochs'
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply(text, root=tmp_path)
    assert caught.value.diagnostics[0].code == "X0902"
    nx.apply(text, root=tmp_path, trust_code=True)


def test_onnx_teaches(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(torch.randn(64, 10).numpy(), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", ["n", 1, 8, 8]), ("y", ["n", 10]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "t.onnx")
    result = nx.apply(HEAD + 'model t = "t.onnx"\ndistill from t for 1epochs', root=tmp_path)
    assert any("untouched" in c for c in claims(result))


def test_onnx_without_onnxruntime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "t.onnx").write_bytes(b"")
    with pytest.raises(nx.NetxformError, match=r"netxform\[export\]"):
        nx.apply(HEAD + 'model t = "t.onnx"\ndistill from t for 1epochs', root=tmp_path)


def test_a_shrunk_student_is_the_same_architecture_narrower() -> None:
    text = 'model student = shrink(teacher, width=50%)\nmodel teacher = zoo.resnet_small() input="1x1x8x8"\n'
    data = "data d = sklearn.digits(train=64)\n"
    result = nx.apply(text + data + "distill from teacher for 1epochs")
    whole = build("resnet_small")
    assert [n for n, _ in result.model.named_parameters()] == [n for n, _ in whole.named_parameters()]
    for (_, small), (_, large) in zip(result.model.named_parameters(), whole.named_parameters(), strict=True):
        assert all(s in (n, n // 2) for s, n in zip(small.shape, large.shape, strict=True))
    assert result.model.conv1.weight.shape == (8, 1, 3, 3)
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan("model a = shrink(b, width=50%)\nmodel b = shrink(a, width=50%)\nfreeze **")
    assert caught.value.diagnostics[0].code == "X0344"


def test_a_snapshot_is_the_network_as_it_was() -> None:
    text = "train ** for 1epochs\nsnapshot teacher\n"
    before = nx.apply(HEAD + text).model
    result = nx.apply(HEAD + text + "widen conv1 x2\ndistill from teacher for 1epochs")
    entry = result.certificate["statements"][-1]
    digest = next(c["detail"]["digest"] for c in entry["claims"] if "teacher" in c["claim"])
    assert digest == fingerprint(before)
    with pytest.raises(nx.NetxformError):
        nx.plan(HEAD + "snapshot net")


# --- features, refusals, warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "match student.layer4 to t.layer4",
        "match layer4 to t.conv2 via conv1x1 weight=0.1",
        "match student.fc1 to t.fc1 via linear",
        "match student.layer4 to t.layer4 via attention",
    ],
)
def test_features_are_matched(line: str) -> None:
    result = distilled(f"distill from t for 4epochs hard=0 using adamw(lr=3e-3) {{ {line} }}")
    rows = result.histories[0][1].rows
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert not any("adapter" in n for n, _ in result.model.named_modules())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("distill from nobody", "X0302"),
        ("distill from t mix=[0.5, 0.4]", "X0406"),
        ("distill from t mix=[2]", "X0406"),
        ("distill from [t, t]", "X0407"),
        ("distill from t temperature=0", "X0406"),
        ("distill from t hard=2", "X0406"),
        ("distill from t { match student.layer4 to t.fc }", "X0343"),
        ("distill from t { match student.layer4 to t.fc1 via conv1x1 }", "X0343"),
        ("distill from t { match student.layer4 to u.layer4 }", "X0302"),
        ("distill from t { match student.layer4 to t.layer9 }", "X0203"),
        ("freeze **\ndistill from t", "X0310"),
        ("distill from t loss=dist processes=2", "X0342"),
        ("distill from t processes=2 for 1epochs", "X0841"),
        ("distill from t augment=spin(3)", "X0401"),
        ("distill from t regularize l3(conv1, 1e-3)", "X0401"),
        ("distill from t regularize l1(activations(fc), 1e-3)", "X0341"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    assert error(text) == code


def test_a_teacher_of_other_size_is_refused() -> None:
    assert error("distill from t", t=build("smallcnn", classes=7)) == "X0343"


def test_a_weak_teacher_is_warned_of() -> None:
    def warnings(clause: str) -> list[str]:
        return distilled(f"train ** for 8epochs using adamw(lr=1e-2)\ndistill from t for 1epochs {clause}").certificate[
            "statements"
        ][-1]["warnings"]

    assert any("weaker than the student" in w for w in warnings(""))

    def knows(x: Tensor) -> Tensor:
        from sklearn.datasets import load_digits

        held = torch.as_tensor(load_digits().images / 16.0, dtype=torch.float32).flatten(1)
        labels = torch.as_tensor(load_digits().target)[torch.cdist(x.flatten(1), held).argmin(1)]
        return 5.0 * nn.functional.one_hot(labels, 10).float()

    result = distilled("distill from t for 1epochs", t=knows)
    assert result.certificate["statements"][-1]["warnings"] == []
    assert result.metrics["teacher_val_accuracy"] == 1.0


def test_a_class_that_is_never_shown() -> None:
    data = nx.apply('model net = zoo.mlp(inputs=64) input="1x1x8x8"\ndata d = sklearn.digits(omit=[3])\ntrain ** for 1epochs')
    assert data.model.fc.out_features == 10
    from netxform.sources.data import load_data
    from netxform.sources.trust import Trust
    from netxform.syntax.parse import parse

    found = load_data(parse("data d = sklearn.digits(omit=[3])").statements[0], Trust(), 0)
    assert 3 not in found.train.tensors[1] and 3 not in found.val.tensors[1] and 3 in found.test.tensors[1]


def test_comparing_to_the_student_alone() -> None:
    result = distilled("distill from t for 1epochs\ncompare to alone seeds=2")
    found = result.certificate["comparisons"][0]
    assert set(found["runs"]) == {"spec", "alone"}
    assert len(found["runs"]["alone"]) == 2
