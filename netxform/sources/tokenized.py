"""Texts as a model's own tokenizer cuts them: padded rows of tokens with their mask, and running text with the token that is
next.

tokenizer, texts ─encoded→ columns (N, length) by the names of the model's arguments
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import Span, fail
from netxform.limits import need as memory
from netxform.sources.models.source import need
from netxform.sources.trust import Trust, no_links, read_path

if TYPE_CHECKING:
    import numpy as np

IGNORED = -100
_PADDING = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
_HUB = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


def tokenizer_of(named: Any, trust: Trust | None, span: Span) -> Any:
    """A tokenizer of transformers: itself, of a folder or a `tokenizer.json`, or by its name where there is a hub. Nothing in
    the folder is run.

    Raises NetxformError X0807 (no such folder), X0814 (transformers is missing), X0826 (no tokenizer in it).
    """
    if callable(named):
        return named
    if type(named).__module__.startswith("tokenizers"):
        return need("transformers", "text", span).PreTrainedTokenizerFast(tokenizer_object=named)
    text = str(named)
    library: Any = need("transformers", "text", span)
    root = Path.cwd() if trust is None else trust.root
    if trust is None:
        path: Path | None = Path(text) if Path(text).exists() else None
    else:
        path = read_path(text, trust, span) if (root / text).exists() or not _HUB.fullmatch(text) else None
        if path is not None and path.is_dir() and not trust.outside:
            no_links(path, span)
    try:
        if path is not None and path.is_file():
            made = library.PreTrainedTokenizerFast(tokenizer_file=str(path))
            known: dict[str, int] = made.get_vocab()
            made.pad_token = next((t for t in _PADDING if t in known), None)  # a file alone does not say which it is
            return made
        local = path is not None
        return library.AutoTokenizer.from_pretrained(str(path or text), local_files_only=local, trust_remote_code=False)
    except Exception as error:  # whatever the library raises on files that it does not know
        line = (str(error).strip().splitlines() or [""])[0][:160]
        helps = ('name the folder of the model, with its `tokenizer.json`, or that file: `tokenizer="FOLDER"`',)
        raise fail("X0826", f"no tokenizer is read from `{text}`: {line}", span, "no tokenizer", helps=helps) from error


def encoded(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, length: int, what: str, span: Span
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Columns (N, length) by the names of the model's arguments, padded behind, and what was cut, in words.

    Raises NetxformError X0406 where there is nothing to pad with.
    """
    import numpy as np

    memory(len(texts) * length * 12, f"{what}: {len(texts):,} texts of {length} tokens", span)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            message = f"{what}: the tokenizer has no token to pad with"
            raise fail("X0406", message, span, "no `pad_token`", helps=("set one: `tokenizer.pad_token = …`",))
        tokenizer.pad_token = tokenizer.eos_token
    settings: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": length}
    found: Any = tokenizer(list(texts), None if pairs is None else list(pairs), **settings)
    columns = {k: np.asarray(v, dtype=np.int32) for k, v in found.items() if len(v) == len(texts)}
    whole = tokenizer(list(texts), None if pairs is None else list(pairs), truncation=False, verbose=False)["input_ids"]
    cut = sum(len(ids) > length for ids in whole)
    said = (f"{cut:,} of {len(texts):,} texts are longer than {length} tokens, and cut",) if cut else ()
    return columns, said


def next_tokens(tokenizer: Any, text: str, length: int, what: str, span: Span) -> tuple[np.ndarray, np.ndarray]:
    """Running text in blocks: x (N, length), and y (N, length) with the token that comes next; behind the text −100.

    Raises NetxformError X0817 where there are fewer than two tokens.
    """
    import numpy as np

    ids: Any = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < 2:
        raise fail("X0817", f"{what} holds fewer than two tokens", span, "nothing comes next", helps=("give it more text",))
    count = -(-(len(ids) - 1) // length)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    x = np.full((count * length,), padding, dtype=np.int32)
    y = np.full((count * length,), IGNORED, dtype=np.int64)
    x[: len(ids) - 1] = ids[:-1]
    y[: len(ids) - 1] = ids[1:]
    return x.reshape(count, length), y.reshape(count, length)
