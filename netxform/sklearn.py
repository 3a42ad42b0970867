"""The neck of a network in a scikit-learn pipeline.

from sklearn.pipeline import make_pipeline
make_pipeline(FeatureExtractor(model, at="layer4", input_shape=(1, 8, 8)), RandomForestClassifier())
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Features of samples: the value at a point of a network, pooled and flattened. (Razavian et al., 2014)

    `model`: a `torch.nn.Module`, or None for the samples as they are. `at`: a selection, the point (None: the output).
    `input_shape`: the shape of one sample, (C, H, W); rows of X are reshaped to it. `pool`: avg, max or none.
    `batch_size`: samples at a time. The model is never changed, and `transform` runs in eval mode.

    X (n_samples, n_values), or (n_samples, C, H, W) where `input_shape` is None; result (n_samples, n_features) float32.
    Raises NetxformError where the model cannot be captured or has no such point.
    """

    def __init__(
        self,
        model: Any = None,
        at: str | None = None,
        input_shape: tuple[int, ...] | None = None,
        pool: str = "avg",
        batch_size: int = 256,
    ) -> None:
        self.model = model
        self.at = at
        self.input_shape = input_shape
        self.pool = pool
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:
        """Cut the network; nothing is learnt from X but its shape."""
        x = self._samples(X, reset=True)
        self.network_ = None
        if self.model is not None:
            import torch

            import netxform as nx

            spec = f"features at {self.at} pool={self.pool}" if self.at is not None else "freeze **"
            self.network_ = nx.apply(spec, model=self.model, example_inputs=torch.from_numpy(x[:1])).model
        self.n_features_out_ = int(self._run(x[:1]).shape[1])
        return self

    def transform(self, X: Any) -> Any:
        """The features of X."""
        check_is_fitted(self, "n_features_out_")
        x = self._samples(X, reset=False)
        parts = [self._run(x[i : i + self.batch_size]) for i in range(0, len(x), self.batch_size)]
        return np.concatenate(parts)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """`featureextractor0` …"""
        check_is_fitted(self, "n_features_out_")
        return np.array([f"{type(self).__name__.lower()}{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _samples(self, X: Any, reset: bool) -> Any:
        images = self.model is not None and self.input_shape is None
        x: Any = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=images)
        if self.input_shape is not None:
            return x.reshape(len(x), *self.input_shape)
        return x

    def _run(self, x: Any) -> Any:
        if self.network_ is None:
            return x.reshape(len(x), -1)
        import torch

        with torch.no_grad():
            return self.network_(torch.from_numpy(x)).flatten(1).float().numpy()
