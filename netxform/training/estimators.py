"""A scikit-learn classifier on the features of a network."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from netxform.errors import did_you_mean, fail
from netxform.graph.inputs import arguments
from netxform.graph.layer_spec import Invocation
from netxform.graph.network import Network
from netxform.graph.outputs import picked
from netxform.language.work import Fitting
from netxform.sources.data import DataSet
from netxform.training.data import Samples, batches

SHORT: dict[str, tuple[str, str]] = {
    "random_forest": ("sklearn.ensemble", "RandomForestClassifier"),
    "extra_trees": ("sklearn.ensemble", "ExtraTreesClassifier"),
    "gradient_boosting": ("sklearn.ensemble", "HistGradientBoostingClassifier"),
    "logistic_regression": ("sklearn.linear_model", "LogisticRegression"),
    "ridge": ("sklearn.linear_model", "RidgeClassifier"),
    "svm": ("sklearn.svm", "SVC"),
    "knn": ("sklearn.neighbors", "KNeighborsClassifier"),
    "naive_bayes": ("sklearn.naive_bayes", "GaussianNB"),
}
_FIRST = {
    "random_forest": "n_estimators",
    "extra_trees": "n_estimators",
    "knn": "n_neighbors",
    "svm": "C",
    "ridge": "alpha",
    "logistic_regression": "C",
    "gradient_boosting": "max_iter",
}
_DEFAULTS: dict[str, dict[str, object]] = {"logistic_regression": {"max_iter": 2000}}


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier, its name, and how it was made."""

    name: str
    made: str
    estimator: Any


def make(call: Invocation, seed: int) -> Any:
    """The classifier that a spec names: a short name, or `sklearn.MODULE.CLASS(…)`.

    Raises NetxformError X0213 (unknown), X0411 (bad arguments).
    """
    from sklearn.utils import all_estimators

    if call.name in SHORT:
        module, cls_name = SHORT[call.name]
    else:
        known = {f"{'.'.join(c.__module__.split('.')[:2])}.{n}": c for n, c in all_estimators(type_filter="classifier")}
        if call.name not in known:
            raise fail(
                "X0213",
                f"`{call.name}` is no classifier of scikit-learn",
                call.span,
                "unknown",
                helps=did_you_mean(call.name, [*SHORT, *known]) or (f"short names: {', '.join(SHORT)}",),
            )
        module, _, cls_name = call.name.rpartition(".")
    cls = getattr(importlib.import_module(module), cls_name)
    keywords = _DEFAULTS.get(call.name, {}) | call.keywords
    if call.arguments:
        first = _FIRST.get(call.name) or next(iter(cls._get_param_names()))
        if call.name not in _FIRST and call.name.startswith("sklearn."):
            import inspect

            first = next(p for p in inspect.signature(cls).parameters)
        keywords[first] = call.arguments[0]
    try:
        made = cls(**keywords)
        unknown = set(keywords) - set(made.get_params())
        if unknown:
            raise TypeError(f"unknown argument {sorted(unknown)[0]}")
        if "random_state" in made.get_params() and "random_state" not in keywords:
            made.set_params(random_state=seed % (2**32))
        return made
    except (TypeError, ValueError) as error:
        raise fail("X0411", f"`{call}` cannot be made: {error}", call.span, "bad arguments") from None


@torch.no_grad()
def features(network: Network, samples: Samples, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """The network's output on every sample, flat, and the targets."""
    module = network.module
    module.eval()
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for x, y in batches(samples, batch):
        xs.append(picked(module(*arguments(x)), None).flatten(1).float().numpy())
        ys.append(y.numpy())
    if not xs:
        return np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.concatenate(xs), np.concatenate(ys)


def fit_estimator(network: Network, work: Fitting, data: DataSet) -> tuple[Fitted, dict[str, float]]:
    """Fit on the features of the training part; accuracy on validation and test parts."""
    estimator = make(work.estimator, work.seed)
    x, y = features(network, data.train, work.batch)
    try:
        estimator.fit(x, y)
    except ValueError as error:
        raise fail("X0805", f"`{work.estimator}` cannot be fitted: {str(error).splitlines()[0]}") from error
    metrics: dict[str, float] = {"train_accuracy": float(estimator.score(x, y))}
    for part, samples in (("val", data.val), ("test", data.test)):
        seen, targets = features(network, samples, work.batch)
        if len(targets):
            metrics[f"{part}_accuracy"] = float(estimator.score(seen, targets))
    return Fitted(work.name, str(work.estimator), estimator), metrics
