"""Make the small data that some sample specs read, of what installed packages carry: photos, handwritten digits, patients.

python -m benchmarks.sample_data [specs/data]

photos/{train,val}/{flower,temple}/*.jpg    pieces of the two photographs of scikit-learn
digits.csv, digits/*.png                    three handwritten digits side by side, and a column for each of 0, 1, 2: is it there?
scenes/*.png, masks/*.png                   digits on a noisy ground, and where they are (255)
diabetes.parquet                            442 patients: ten measurements, and the progression a year later (Efron et al., 2004)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

SIZE = 48


def make(out: Path, count: int = 60) -> None:
    """All of it, below `out`; `count` images of each kind. The same bytes each time."""
    out.mkdir(parents=True, exist_ok=True)
    photos(out / "photos", count)
    digits(out, 4 * count)
    scenes(out, count)
    patients(out / "diabetes.parquet")


def photos(out: Path, count: int) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    for name, file in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        image = load_sample_image(file)
        for i in range(count):
            part = "val" if i % 5 == 0 else "train"
            side = int(rng.integers(96, 160))
            top, left = (int(rng.integers(0, s - side)) for s in image.shape[:2])
            place = out / part / name / f"{i:03d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[top : top + side, left : left + side]).resize((SIZE, SIZE + 16)).save(place, quality=90)


def digits(out: Path, count: int) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    held = load_digits()
    pixels, labels = (held.images * 15.9).astype(np.uint8), held.target
    rng = np.random.default_rng(1)
    (out / "digits").mkdir(exist_ok=True)
    with (out / "digits.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "zero", "one", "two"])
        few = np.flatnonzero(labels < 5)
        for i in range(count):
            three = rng.choice(few, 3)
            name = f"digits/{i:03d}.png"
            Image.fromarray(np.concatenate(pixels[three], axis=1)).save(out / name)
            table.writerow([name, *(int((labels[three] == d).any()) for d in range(3))])


def scenes(out: Path, count: int) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = load_digits().images
    rng = np.random.default_rng(2)
    for folder in ("scenes", "masks"):
        (out / folder).mkdir(exist_ok=True)
    for i in range(count):
        scene = rng.normal(70, 15, (SIZE, SIZE, 3))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        digit = np.kron(pixels[int(rng.integers(len(pixels)))], np.ones((3, 3)))
        top, left = (int(rng.integers(0, SIZE - 24)) for _ in range(2))
        mask[top : top + 24, left : left + 24][digit >= 8] = 255
        scene[mask > 0] += 110
        Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(out / "scenes" / f"{i:03d}.png")
        Image.fromarray(mask).save(out / "masks" / f"{i:03d}.png")


def patients(out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_diabetes

    held = load_diabetes(scaled=False)
    columns = dict(zip(held.feature_names, held.data.T, strict=True))
    pq.write_table(pa.table({**columns, "progression": held.target / 100}), out)


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "specs/data"))
