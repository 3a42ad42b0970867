"""The same classifier gives the same `.skops` bytes, in another process too; and a changed one other bytes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import netxform as nx
from netxform.artifacts.estimator import canonical
from netxform.errors import NOWHERE
from netxform.sources.stored_classifiers import read

KINDS = {
    "forest": lambda: RandomForestClassifier(4, random_state=0),
    "extra": lambda: ExtraTreesClassifier(4, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=4, random_state=0),
    "logistic": lambda: LogisticRegression(),
    "bayes": lambda: GaussianNB(),
    "neighbours": lambda: KNeighborsClassifier(3),
    "svm": lambda: SVC(),
}


def samples(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, 5))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_fitted_twice_has_the_same_bytes_and_computes_the_same(kind: str, tmp_path: Path) -> None:
    x, y = samples()
    made = [KINDS[kind]().fit(x, y) for _ in range(2)]
    junk = [np.full(1000 + i, 255, np.uint8) for i in range(300)]  # memory that is not zero
    del junk
    one, two = (canonical(skops.io.dumps(m)) for m in made)
    assert one == two
    (tmp_path / "c.skops").write_bytes(one)
    back = read(tmp_path / "c.skops", NOWHERE)
    assert np.array_equal(back.predict(x), made[0].predict(x))
    if kind != "neighbours":  # a tree of neighbours is built anew when it is read
        assert canonical(one) == one
    other = KINDS[kind]().fit(x[:-9], y[:-9])
    assert canonical(skops.io.dumps(other)) != one


def test_a_spec_with_a_forest_gives_the_same_folder_in_two_processes(tmp_path: Path) -> None:
    code = """
        import sys, netxform as nx
        nx.apply('''model net = zoo.smallcnn() input="1x1x8x8"
        data d = sklearn.digits(train=60)
        features at layer4
        attach random_forest(3)''', out=sys.argv[1])
    """
    for name, salt in (("a", "1"), ("b", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / name / "out")]
        subprocess.run(run, check=True, env=environment, timeout=120)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n / "out").iterdir()} for n in "ab")
    assert one == two
    assert any(n.endswith(".skops") for n in one)
    assert nx.verify(tmp_path / "a" / "out").held


def test_the_sets_of_a_classifier_are_written_in_one_order() -> None:
    words = [f"w{i}" for i in range(40)]
    made = [canonical(skops.io.dumps({"kept": set(order)})) for order in (words, words[::-1])]
    assert made[0] == made[1]
    assert skops.io.load(io.BytesIO(made[0]))["kept"] == set(words)
