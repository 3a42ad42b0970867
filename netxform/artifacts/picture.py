"""Trajectories in a plane: t-SNE, PCA or Isomap; how well pre-trained and other runs part; and the picture.

Trajectory … ─embed→ Picture ─draw→ Figure
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from netxform.artifacts.exchange import replacing
from netxform.errors import fail
from netxform.language.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Method = Literal["tsne", "pca", "isomap"]
METHODS: tuple[Method, ...] = ("tsne", "pca", "isomap")
CURVES = ("val_loss", "val_accuracy", "train_loss")


@dataclass(frozen=True)
class Picture:
    """Every point of every run in a plane, and how well the two kinds of run part.

    `plane` (P, 2), `run` (P) the number of the trajectory, `epoch` (P). Purities are shares of points whose nearest neighbour
    among the *other* runs is of the same kind: in the space recorded (`purity`), in the plane, and of the last epochs alone.
    `chance` is what kinds without any meaning would give. None where all runs are of one kind.
    """

    trajectories: tuple[Trajectory, ...]
    plane: np.ndarray
    run: np.ndarray
    epoch: np.ndarray
    method: Method
    perplexity: float
    seed: int
    purity: float | None
    purity_plane: float | None
    purity_last: float | None
    chance: float | None

    def numbers(self) -> dict[str, Any]:
        """What the picture says, as plain data."""
        kinds = [t.pretrained for t in self.trajectories]
        return {
            "method": self.method,
            "perplexity": self.perplexity if self.method == "tsne" else None,
            "seed": self.seed,
            "runs": len(kinds),
            "pretrained": sum(kinds),
            "points": len(self.plane),
            "dimensions": int(self.trajectories[0].points.shape[1]),
            "what": self.trajectories[0].what,
            "purity": self.purity,
            "purity in the plane": self.purity_plane,
            "purity of the last epochs": self.purity_last,
            "chance": self.chance,
        }


def embed(trajectories: Sequence[Trajectory], *, method: Method = "tsne", perplexity: float = 30.0, seed: int = 0) -> Picture:
    """Put the trajectories into a plane. The same for the same seed on the same machine.

    t-SNE: van der Maaten, Hinton, 2008; Isomap: Tenenbaum, de Silva, Langford, 2000; both by scikit-learn, on the leading 50
    principal components. A perplexity that is too large for so few points is lowered, and reported as it was used.
    Raises NetxformError X0825 where the trajectories are of different spaces, or too few.
    """
    spaces = {(t.what, t.points.shape[1]) for t in trajectories}
    if len(spaces) != 1:
        seen = ", ".join(f"{n} numbers of {what}" for what, n in sorted(spaces)) or "none"
        helps = ("record with the same probe set, and compare one kind of training at a time",)
        raise fail("X0825", "these trajectories are not of one space", notes=(f"points: {seen}",), helps=helps)
    points = np.concatenate([t.points.double().numpy() for t in trajectories])
    if len(points) < 4:
        raise fail("X0825", f"{len(points)} points are no picture", helps=("record more epochs or more runs",))
    run = np.repeat(np.arange(len(trajectories)), [len(t.epochs) for t in trajectories])
    epoch = np.concatenate([np.array(t.epochs) for t in trajectories])
    used = min(perplexity, (len(points) - 1) / 3)
    plane = _plane(points, method, used, seed)
    kind = np.array([t.pretrained for t in trajectories])[run]
    last = np.array([e == t.epochs[-1] for t in trajectories for e in t.epochs])
    found = [purity(p, r, k) for p, r, k in ((points, run, kind), (plane, run, kind), (points[last], run[last], kind[last]))]
    chance = _chance(run, kind) if found[0] is not None else None
    return Picture(tuple(trajectories), plane, run, epoch, method, used, seed, found[0], found[1], found[2], chance)


def _plane(points: np.ndarray, method: Method, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, Isomap

    size = min(2 if method == "pca" else 50, *points.shape)
    reduced = cast(np.ndarray, PCA(size, svd_solver="full").fit_transform(points))
    match method:
        case "pca":
            return reduced[:, :2]
        case "isomap":
            with warnings.catch_warnings():  # that the graph of neighbours had several parts, and was completed
                warnings.simplefilter("ignore")
                made = Isomap(n_neighbors=min(10, len(points) - 1), n_components=2)
                return cast(np.ndarray, made.fit_transform(reduced))
        case "tsne":
            made = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, method="barnes_hut")
            return cast(np.ndarray, made.fit_transform(reduced))


def purity(points: np.ndarray, run: np.ndarray, kind: np.ndarray) -> float | None:
    """The share of points whose nearest neighbour among the other runs is of their kind.

    Points of one's own run are left out: the epochs before and after would always be nearest. None for one kind alone.
    """
    if len(set(kind.tolist())) < 2:
        return None
    square = (points**2).sum(1)
    distance = square[:, None] + square[None, :] - 2 * points @ points.T
    distance[run[:, None] == run[None, :]] = np.inf
    return float((kind[distance.argmin(1)] == kind).mean())


def _chance(run: np.ndarray, kind: np.ndarray) -> float:
    """The share of same-kind points among the points of other runs, averaged over the points."""
    other = run[:, None] != run[None, :]
    same = (kind[:, None] == kind[None, :]) & other
    return float((same.sum(1) / np.maximum(other.sum(1), 1)).mean())


def draw(picture: Picture, curve: str | None = None) -> Figure:
    """Crosses for pre-trained runs, circles for others, coloured by epoch, a line a run; beside it the learning curves.

    Raises NetxformError X0814 where matplotlib is missing.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        helps = ("pip install 'netxform[viz]'",)
        raise fail("X0814", "`matplotlib` is not installed: it draws the picture", helps=helps) from error
    figure = Figure(figsize=(12, 6), dpi=120, layout="constrained")
    left, right = cast("tuple[Any, Any]", figure.subplots(1, 2, width_ratios=[2, 1]))
    colours, norm = colormaps["viridis"], Normalize(0, max(1, int(picture.epoch.max())))
    seen: set[bool] = set()
    shown: Any = None
    for i, way in enumerate(picture.trajectories):
        x, y = picture.plane[picture.run == i].T
        left.plot(x, y, color="0.75", linewidth=0.6, zorder=1)
        label = ("pre-trained" if way.pretrained else "not pre-trained") if way.pretrained not in seen else None
        seen.add(way.pretrained)
        style: dict[str, Any] = {"marker": "x"} if way.pretrained else {"marker": "o", "facecolors": "none"}
        if way.pretrained:
            shown = left.scatter(
                x, y, c=way.epochs, cmap=colours, norm=norm, s=22, linewidths=1.1, label=label, zorder=2, **style
            )
        else:
            edges = colours(norm(np.array(way.epochs)))
            left.scatter(x, y, edgecolors=edges, s=20, linewidths=0.9, label=label, zorder=2, **style)
    if shown is None:
        from matplotlib.cm import ScalarMappable

        shown = ScalarMappable(norm, colours)
    figure.colorbar(shown, ax=left, label="epoch", shrink=0.8)
    left.legend(loc="best", frameon=False)
    left.set_xticks([])
    left.set_yticks([])
    space = "function space" if picture.trajectories[0].what == "outputs" else "weight space"
    left.set_title(f"{space}: {_how(picture)}\n{_parting(picture)}", fontsize=10)
    _curves(right, picture, curve)
    return figure


def _how(picture: Picture) -> str:
    name = {"tsne": "t-SNE", "pca": "PCA", "isomap": "Isomap"}[picture.method]
    more = f", perplexity {picture.perplexity:g}, seed {picture.seed}" if picture.method == "tsne" else ""
    return f"{name}{more}, {len(picture.trajectories)} runs, {len(picture.plane)} points"


def _parting(picture: Picture) -> str:
    if picture.purity is None:
        return "one kind of run alone"
    return f"nearest neighbour in another run is of the same kind: {picture.purity:.2f} (chance {picture.chance:.2f})"


def _curves(axes: Any, picture: Picture, curve: str | None) -> None:
    known = {k for t in picture.trajectories for r in t.rows for k in r}
    name = curve or next((c for c in CURVES if c in known), None)
    if name is None or name not in known:
        axes.set_axis_off()
        return
    for way in picture.trajectories:
        pairs = [(r["epoch"], r[name]) for r in way.rows if name in r]
        colour, style = ("tab:blue", "-") if way.pretrained else ("tab:red", "--")
        axes.plot(*zip(*pairs, strict=True), color=colour, linestyle=style, linewidth=0.9, alpha=0.8)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name.replace("_", " "))
    axes.set_title("blue: pre-trained; red: not", fontsize=10)
    if name.endswith("loss"):
        axes.set_yscale("log")


def save(figure: Figure, path: Path) -> None:
    """Write PNG, SVG or PDF, by the name's ending: the same bytes for the same figure. Raises NetxformError X0819."""
    from matplotlib import rc_context

    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg", "pdf"):
        raise fail("X0819", f"`{path.name}`: pictures are written as .png, .svg or .pdf")
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with rc_context({"svg.hashsalt": "netxform"}), replacing(path) as part:
        figure.savefig(part, metadata=metadata)
