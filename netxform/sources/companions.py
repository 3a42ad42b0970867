"""What belongs to a model beside its weights: tokenizer, image processor, configuration. Text and tables, nothing that runs.

folder ─of_folder→ {name in a bundle: bytes}

They lie in a bundle under their own names, so that `AutoTokenizer.from_pretrained(BUNDLE)` reads them. The configuration alone
has another (`hf_config.json`): what reads a `config.json` looks for the model that it speaks of, a bundle holds another one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from netxform.errors import Span
from netxform.sources.trust import TEXT, room_for

CONFIG = "hf_config.json"
TEXTS = (
    CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "preprocessor_config.json", "processor_config.json", "chat_template.jinja",
)  # fmt: skip
TABLES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")  # vocabularies of SentencePiece: protobuf, data alone
NAMES = (*TEXTS, *TABLES)
"""What may lie in a bundle."""


def _theirs(name: str) -> str:
    return "config.json" if name == CONFIG else name


def of_folder(folder: Path, span: Span) -> dict[str, bytes]:
    """The files of a folder that belong to its model. Raises NetxformError X0905 (no plain file), X0906 (too large)."""
    return gathered(lambda name: folder / name, span)


def gathered(where: Callable[[str], Path | None], span: Span) -> dict[str, bytes]:
    """Those that are there; `where` tells the place of each by its own name."""
    found: dict[str, bytes] = {}
    for name in NAMES:
        path = where(_theirs(name))
        if path is not None and path.is_file():
            room_for(path, TEXT, span)
            held = path.read_bytes()
            if name in TABLES or _is_text(held):
                found[name] = held
    return found


def of_bundle(folder: Path) -> dict[str, bytes]:
    """Those of a bundle, whose every byte was accounted for."""
    return {n: (folder / n).read_bytes() for n in NAMES if (folder / n).is_file()}


def _is_text(held: bytes) -> bool:
    try:
        held.decode()
    except UnicodeDecodeError:
        return False
    return True
