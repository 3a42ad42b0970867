"""Make the toy texts of the sample specs: reviews with labels, stories of neighbouring sentences, vectors of their words.

    python -m benchmarks.toy_text [specs/toy]

A small grammar writes them; the same files for the same seed. In the vectors, words of one kind lie near each other, so that
what a vector says of a word that training never showed can be used.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

KINDS: dict[str, list[str]] = {
    "good": "fine clever warm bright funny moving gentle lively honest rich superb tender witty fresh".split(),
    "bad": "dull clumsy cold noisy stale empty tired cheap messy bland dreary crude shallow flat".split(),
    "thing": "film story plot cast score scene ending script dialogue pace camera tale".split(),
    "place": "house garden river market village forest harbour bridge".split(),
    "animal": "dog cat horse fox bird goat".split(),
    "move": "walked ran crept hurried wandered jumped".split(),
    "rest": "slept rested waited sat stayed hid".split(),
    "very": "very truly rather quite".split(),
}
FRAME = "the a is was and but with to in near there it then never this".split()
WIDTH = 16


def review(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(["good", "bad"])
    one, two = rng.choice(KINDS["thing"]), rng.choice(KINDS["thing"])
    a, b = rng.choice(KINDS[kind]), rng.choice(KINDS[kind])
    very = rng.choice(KINDS["very"])
    forms = [
        f"the {one} is {very} {a} and the {two} was {b} .",
        f"a {a} {one} with a {b} {two} .",
        f"this {one} was {very} {a} .",
        f"the {two} is {b} , the {one} never {rng.choice(KINDS['bad' if kind == 'good' else 'good'])} .",
    ]
    return kind, rng.choice(forms)


def story(rng: random.Random) -> list[str]:
    animal, place, other = rng.choice(KINDS["animal"]), rng.choice(KINDS["place"]), rng.choice(KINDS["place"])
    out = [f"the {animal} {rng.choice(KINDS['move'])} to the {place} ."]
    for _ in range(rng.randrange(2, 5)):
        verb = rng.choice(KINDS["rest"])
        out.append(rng.choice([f"the {animal} {verb} in the {place} .", f"it {verb} there , near the {other} ."]))
        place, other = other, rng.choice(KINDS["place"])
        out.append(f"then the {animal} {rng.choice(KINDS['move'])} to the {place} .")
    return out


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "specs/toy")
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    reviews = dict.fromkeys(review(rng) for _ in range(700))
    (folder / "reviews.tsv").write_text("".join(f"{kind}\t{text}\n" for kind, text in reviews))
    (folder / "story.txt").write_text("\n".join("".join(f"{s}\n" for s in story(rng)) for _ in range(120)))
    numbers = np.random.default_rng(0)
    lines: list[str] = []
    for words in (*KINDS.values(), FRAME):
        middle = numbers.standard_normal(WIDTH)
        for word in words:
            vector = middle + 0.4 * numbers.standard_normal(WIDTH)
            lines.append(f"{word} {' '.join(f'{v:.3f}' for v in vector)}")
    (folder / "vectors.txt").write_text(f"{len(lines)} {WIDTH}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
