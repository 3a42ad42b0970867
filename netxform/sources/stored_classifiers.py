"""Classifiers in `.skops` files: scikit-learn's own estimators and numbers, and nothing that could be called.

The file is looked at before anything in it is made: how large it is unpacked, and every class that it names.
"""

from __future__ import annotations

import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from netxform.errors import Span, fail
from netxform.limits import allowed
from netxform.sources.trust import too_large

# how skops makes objects: containers, numbers, objects of a class; no functions, methods, partial calls, reductions
_MAKERS = frozenset(
    f"{n}Node"
    for n in (
        "Dict DefaultDict List Set Tuple Slice Json Bytes NdArray MaskedArray DType RandomState RandomGenerator SparseMatrix "
        "Object Tree Loss Type Cached"
    ).split()
)
_PLAIN = frozenset("dict list set tuple slice str int float bool bytes NoneType defaultdict OrderedDict".split())
# what fitted estimators keep that is no estimator
_PARTS = frozenset(
    """
sklearn.tree._tree.Tree sklearn.ensemble._hist_gradient_boosting.binning._BinMapper
sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor sklearn.calibration._CalibratedClassifier
sklearn.calibration._SigmoidCalibration sklearn.neural_network._stochastic_optimizers.AdamOptimizer
sklearn.neural_network._stochastic_optimizers.SGDOptimizer sklearn._loss.link.HalfLogitLink sklearn._loss.link.IdentityLink
sklearn._loss.link.Interval sklearn._loss.link.LogLink sklearn._loss.link.LogitLink sklearn._loss.link.MultinomialLogit
sklearn._loss.loss.AbsoluteError sklearn._loss.loss.ExponentialLoss sklearn._loss.loss.HalfBinomialLoss
sklearn._loss.loss.HalfMultinomialLoss sklearn._loss.loss.HalfPoissonLoss sklearn._loss.loss.HalfSquaredError
sklearn._loss._loss.CyHalfBinomialLoss sklearn._loss._loss.CyHalfMultinomialLoss sklearn._loss._loss.CyHalfSquaredError
sklearn._loss._loss.CyExponentialLoss sklearn.linear_model._sgd_fast.Log sklearn.linear_model._sgd_fast.Hinge
sklearn.linear_model._sgd_fast.ModifiedHuber sklearn.linear_model._sgd_fast.SquaredHinge sklearn.neighbors._kd_tree.KDTree
sklearn.neighbors._kd_tree.KDTree64 sklearn.neighbors._ball_tree.BallTree sklearn.neighbors._ball_tree.BallTree64
sklearn.metrics._dist_metrics.EuclideanDistance64 sklearn.metrics._dist_metrics.EuclideanDistance
sklearn.metrics._dist_metrics.ManhattanDistance64 sklearn.metrics._dist_metrics.MinkowskiDistance64
sklearn.metrics._dist_metrics.ChebyshevDistance64
""".split()
)
_NEVER = frozenset({"FunctionTransformer"})  # it calls what it holds
_RATIO = 1000


@lru_cache(maxsize=1)
def _estimators() -> frozenset[str]:
    """Full names of scikit-learn's own estimators."""
    from sklearn.utils import all_estimators

    own = [cls for name, cls in all_estimators() if name not in _NEVER and cls.__module__.startswith("sklearn.")]
    return frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in own)


def read(path: Path, span: Span, most: int | None = None) -> Any:
    """The estimator in the file. `most`: bytes that it may have unpacked (None: the memory of the machine).

    Raises NetxformError X0904 (it holds something else), X0906 (too large unpacked), X0808 (damaged).
    """
    import skops.io

    limit = allowed() if most is None else most
    try:
        kinds = _kinds(path, limit, span)
        strange = sorted(name for maker, name in kinds if not _allowed(maker, name))
        if strange:
            raise fail(
                "X0904",
                f"`{path.name}` holds {', '.join(strange[:4])}",
                span,
                "not allowed",
                notes=("a stored classifier holds scikit-learn's own estimators and numbers, and no functions",),
            )
        estimator = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        _within_bounds(estimator)
        return estimator
    except MemoryError as error:
        raise too_large(f"an array in `{path.name}`", limit + 1, limit, span) from error
    except Exception as error:
        if type(error).__module__.startswith("netxform."):
            raise
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise fail("X0808", f"`{path.name}` cannot be read: {text}", span, "damaged") from error


def _allowed(maker: str, name: str) -> bool:
    space, _, last = name.rpartition(".")
    if maker not in _MAKERS:
        return False
    if space in ("builtins", "collections"):
        return last in _PLAIN
    if space == "numpy" or space.startswith("numpy.random."):
        import numpy as np

        found: Any = getattr(np, last, None) if space == "numpy" else getattr(np.random, last, None)
        return isinstance(found, type) and last != "object_"
    if space.startswith("scipy.sparse"):
        return maker == "SparseMatrixNode"
    return name in _PARTS or name in _estimators()


def _kinds(path: Path, limit: int, span: Span) -> set[tuple[str, str]]:
    """How each object of the file is made, and of what class; from its schema, which is text."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
        if size > limit or size > max(1 << 24, _RATIO * packed):
            raise too_large(f"`{path.name}`, unpacked,", size, min(limit, max(1 << 24, _RATIO * packed)), span)
        if len({m.filename for m in members}) != len(members):
            raise fail("X0808", f"`{path.name}` cannot be read: two members of one name", span, "damaged")
        schema = json.loads(archive.read("schema.json"))
    found: set[tuple[str, str]] = set()
    stack: list[Any] = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            entry = cast("dict[str, Any]", value)
            if "__loader__" in entry or "__class__" in entry:
                found.add((str(entry.get("__loader__")), f"{entry.get('__module__')}.{entry.get('__class__')}"))
            stack += entry.values()
        elif isinstance(value, list):
            stack += cast("list[Any]", value)
    return found


def _within_bounds(estimator: Any) -> None:
    """Raises ValueError where a tree points outside of its own nodes or of the features: compiled code follows it blindly."""
    import numpy as np

    stack: list[tuple[Any, int]] = [(estimator, 0)]  # what is looked at, and how many features it is given
    seen = set[int]()
    while stack:
        one, features = stack.pop()
        if id(one) in seen or isinstance(one, str | bytes | int | float):
            continue
        seen.add(id(one))
        inner: list[Any] = []
        if isinstance(one, np.ndarray) and one.dtype == object:
            inner = list(one.ravel())
        elif isinstance(one, list | tuple | set):
            inner = list(cast("list[Any]", one))
        elif isinstance(one, dict):
            inner = list(cast("dict[Any, Any]", one).values())
        elif type(one).__name__ in ("Tree", "TreePredictor"):
            _inside(one, features)
        elif type(one).__module__.startswith("sklearn."):
            features = int(getattr(one, "n_features_in_", features))
            inner = list(getattr(one, "__dict__", {}).values())
        stack += [(value, features) for value in inner]


def _inside(tree: Any, features: int) -> None:
    import numpy as np

    if type(tree).__name__ == "Tree":
        left, right, ends, feature = tree.children_left, tree.children_right, tree.children_left == -1, tree.feature
    else:
        nodes = tree.nodes
        left, right, ends, feature = nodes["left"], nodes["right"], nodes["is_leaf"] == 1, nodes["feature_idx"]
    count = len(left)
    onward = (np.minimum(left, right) > np.arange(count)) & (left < count) & (right < count)
    if not bool(np.all(ends | (onward & (feature >= 0) & (feature < features)))):
        raise ValueError("a tree points outside of itself")
