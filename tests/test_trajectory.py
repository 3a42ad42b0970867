"""Trajectories: recording changes nothing, points are what the network computes, pictures are the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import netxform as nx
from netxform import api
from netxform.artifacts.picture import embed, purity
from netxform.cli import main
from netxform.language.trajectory import Trajectory, sketch
from netxform.sources.data import load_data
from netxform.sources.trust import Trust
from netxform.training.fit import Quiet

HEAD = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"\ndata d = sklearn.digits(train=60, test=30, val=20)\n'
STAGE = "stage s {{ train ** for 3epochs on d; {} }}"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("t") / "b"
    nx.apply(HEAD + STAGE.format("record trajectory samples=12") + "\ncompare to scratch seeds=2", out=folder)
    return folder


def test_recording_changes_nothing() -> None:
    plain = nx.apply(HEAD + STAGE.format("keep best by val_loss")).model
    for how in ("samples=12", "what=weights", "every=2epochs part=train"):
        found = nx.apply(HEAD + STAGE.format(f"record trajectory {how}; keep best by val_loss"))
        assert all(
            torch.equal(a, b) for a, b in zip(plain.state_dict().values(), found.model.state_dict().values(), strict=True)
        )
        (way,) = found.trajectories
        assert way.epochs == ((0, 2) if "every" in how else (0, 1, 2, 3))
        assert len(way.rows) == 3


def test_points_are_what_the_network_computes() -> None:
    result = nx.apply(HEAD + STAGE.format("record trajectory samples=12"))
    (way,) = result.trajectories
    x = torch.stack([load_data(result.plan.spec.data["d"], Trust(), 0).test[i][0] for i in range(12)])
    with torch.no_grad():
        assert torch.equal(way.points[-1], result.model(x).softmax(1).flatten())
    weights = nx.apply(HEAD + STAGE.format("record trajectory what=weights"))
    last = torch.cat([p.detach().flatten() for _, p in weights.model.named_parameters()])
    assert torch.equal(weights.trajectories[0].points[-1], sketch(last))


def test_a_resumed_run_has_the_whole_trajectory(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Interrupt(Quiet):
        count = 0

        def step(self, text: str, advance: int = 1) -> None:
            self.count += 1
            if self.count > 5:
                raise Stop

    text = HEAD + STAGE.format("record trajectory samples=12")
    with pytest.raises(nx.NetxformError):
        nx.apply(text, out=tmp_path / "b", progress=Interrupt())
    (resumed,) = nx.apply(text, out=tmp_path / "b", resume=True).trajectories
    (whole,) = nx.apply(text).trajectories
    assert resumed.epochs == whole.epochs
    assert torch.equal(resumed.points, whole.points)


def test_the_bundle_keeps_all_runs(recorded: Path) -> None:
    assert nx.verify(recorded).held
    ways = api.compare_runs([recorded]).trajectories
    assert [(w.variant, w.seed, w.pretrained) for w in ways] == [
        ("spec", 0, False),
        ("scratch", 0, False),
        ("spec", 1, False),
        ("scratch", 1, False),
    ]
    assert all(w.points.shape == (4, 120) for w in ways)


@pytest.mark.parametrize("method", ["tsne", "pca", "isomap"])
def test_the_picture_is_the_same_for_a_seed(method: str, recorded: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        nx.compare(recorded, method=method, perplexity=3, seed=1, out=tmp_path / f"{name}.svg")
        nx.compare(recorded, method=method, perplexity=3, seed=1, out=tmp_path / f"{name}.png")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_command(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(recorded), "-o", str(tmp_path / "p.png")]) == 0
    shown = capsys.readouterr().out
    assert "perplexity: 5.000" in shown  # 16 points allow no more, and it is said
    assert "seed: 0" in shown
    assert (tmp_path / "p.png").exists()
    (tmp_path / "none").mkdir()
    assert main(["compare", str(tmp_path / "none")]) == 1
    nx.apply(HEAD + "freeze conv1", out=tmp_path / "plain")
    with pytest.raises(nx.NetxformError, match="X0824"):
        nx.compare(tmp_path / "plain")


def way(points: np.ndarray, pretrained: bool) -> Trajectory:
    return Trajectory("spec", 0, pretrained, "train", "outputs", tuple(range(len(points))), torch.from_numpy(points))


@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 99))
def test_purity_of_what_is_apart_is_one_and_of_no_meaning_is_chance(runs: int, epochs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    near = [way(rng.standard_normal((epochs, 3)).astype(np.float32), True) for _ in range(runs)]
    far = [way(rng.standard_normal((epochs, 3)).astype(np.float32) + 99, False) for _ in range(runs)]
    picture = embed([*near, *far], method="pca")
    assert picture.purity == picture.purity_plane == picture.purity_last == 1.0
    assert picture.chance == pytest.approx((runs - 1) / (2 * runs - 1))
    assert embed(near, method="pca").purity is None
    points, run = np.zeros((4, 1)), np.arange(4)
    points[:, 0] = [0, 1, 10, 11]  # neighbours of the other kind
    assert purity(points, run, np.array([True, False, True, False])) == 0.0


def test_other_spaces_are_not_compared() -> None:
    with pytest.raises(nx.NetxformError, match="X0825"):
        embed([way(np.zeros((4, 3), dtype=np.float32), True), way(np.zeros((4, 2), dtype=np.float32), False)])


@given(st.integers(5000, 9000), st.integers(0, 9))
def test_a_sketch_keeps_distances(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, size, generator=generator)
    assert torch.equal(sketch(a), sketch(a))
    # the relative deviation of a squared distance is √(2 / 4096) = 2.2 %: seven of them
    assert float((sketch(a) - sketch(b)).norm() / (a - b).norm()) == pytest.approx(1, abs=0.08)
