"""The feature extractor is an estimator as scikit-learn means it."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import netxform as nx
from netxform.sklearn import FeatureExtractor
from netxform.zoo import build


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([FeatureExtractor()])
def test_estimator_checks(estimator, check) -> None:
    check(estimator)


def test_features_are_those_of_the_cut() -> None:
    model = build("smallcnn").eval()
    x = torch.rand(7, 1, 8, 8)
    found = FeatureExtractor(model, at="layer4", batch_size=3).fit_transform(x.numpy())
    wanted = nx.apply("features at layer4", model=model, example_inputs=x[:1]).model(x)
    assert np.allclose(found, wanted.detach().numpy(), atol=1e-6)
    flat = FeatureExtractor(model, at="layer4", input_shape=(1, 8, 8)).fit_transform(x.flatten(1).numpy())
    assert np.allclose(flat, found, atol=1e-6)
    assert FeatureExtractor(model, at="layer4", pool="none").fit_transform(x.numpy()).shape == (7, 64 * 4)


def test_in_a_pipeline(tmp_path) -> None:
    x, y = load_digits(return_X_y=True)
    x, y = (x[:300] / 16).astype(np.float32), y[:300]
    neck = FeatureExtractor(build("smallcnn"), at="conv3", input_shape=(1, 8, 8), pool="none")
    pipeline = make_pipeline(clone(neck), RandomForestClassifier(30, random_state=0))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.7
    pipeline.fit(x, y)
    joblib.dump(pipeline, tmp_path / "p.joblib")
    assert (joblib.load(tmp_path / "p.joblib").predict(x) == pipeline.predict(x)).all()
    assert len(pipeline[0].get_feature_names_out()) == pipeline[0].n_features_out_
