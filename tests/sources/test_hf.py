"""Models of transformers by the folder that was saved: weights, dtype, code, what belongs to them in a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import netxform as nx
from netxform.errors import NetxformError

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 12}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "f", "g"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, num_labels=3))
    made.save_pretrained(tmp_path / "small")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "small")
    return tmp_path


def test_tokenizer_and_configuration_travel(folder: Path) -> None:
    spec = 'model net = hf.AutoModelForSequenceClassification("small")\nfreeze **'
    nx.apply(spec, root=folder, out=folder / "b")
    assert nx.verify(folder / "b").held
    words = transformers.AutoTokenizer.from_pretrained(folder / "b")
    assert words("a b")["input_ids"] == transformers.AutoTokenizer.from_pretrained(folder / "small")("a b")["input_ids"]
    assert transformers.AutoConfig.from_pretrained(folder / "b" / "hf_config.json").num_labels == 3
    certified = json.loads((folder / "b" / "certificate.json").read_text())["files"]
    assert {"tokenizer_config.json", "hf_config.json"} <= certified.keys()
    with pytest.raises((OSError, ValueError)):  # no half-read model: what is in the bundle is read by its model.py
        transformers.AutoModel.from_pretrained(folder / "b")
    nx.apply('model net = "b"\nfreeze **', root=folder, out=folder / "c")
    assert (folder / "c" / "hf_config.json").read_bytes() == (folder / "b" / "hf_config.json").read_bytes()


@pytest.mark.parametrize("what", ["changed", "added"])
def test_they_are_accounted_for(folder: Path, what: str) -> None:
    nx.apply('model net = hf.BertModel("small")\nfreeze **', root=folder, out=folder / "b")
    if what == "changed":
        path = folder / "b" / "tokenizer_config.json"
        path.write_text(path.read_text().replace("{", "{ ", 1))
    else:
        (folder / "b" / "spiece.model").write_bytes(b"\x00")
    with pytest.raises(NetxformError, match="X0822"):
        nx.verify(folder / "b")


def test_dtype(folder: Path) -> None:
    made = nx.apply('model net = hf.BertModel("small", dtype=bfloat16)\nfreeze **', root=folder).model
    assert next(made.parameters()).dtype is torch.bfloat16
    with pytest.raises(NetxformError, match="X0411"):
        nx.apply('model net = hf.BertModel("small", dtype=int8)\nfreeze **', root=folder)


def test_what_the_weights_do_not_hold_is_said(folder: Path) -> None:
    """A head that is not among the weights is drawn: plan and certificate say so."""
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(folder / "body")
    result = nx.apply('model net = hf.BertForSequenceClassification("body", num_labels=4)\nfreeze **', root=folder)
    assert any("classifier.weight" in w for w in result.plan.warnings)
    assert any("classifier.weight" in w for w in result.certificate["plan_warnings"])


def test_another_number_of_classes(folder: Path) -> None:
    with pytest.raises(NetxformError, match=r"X0809[\s\S]*cut before classifier; attach head classes=5"):
        nx.apply('model net = hf.BertForSequenceClassification("small", num_labels=5)\nfreeze **', root=folder)
    spec = 'model net = hf.BertForSequenceClassification("small")\ncut before classifier; attach head classes=5'
    result = nx.apply(spec, root=folder)
    found: Any = result.model(torch.zeros(1, 16, dtype=torch.long))
    assert next(iter(found.values())).shape == (1, 5) if isinstance(found, dict) else found.shape == (1, 5)


def test_code_that_comes_with_weights(folder: Path) -> None:
    """`trust_remote_code` needs the flag; with it the folder's own class is captured."""
    place = folder / "small"
    config = json.loads((place / "config.json").read_text())
    code = {"AutoConfig": "mine.Settings", "AutoModel": "mine.Mine"}
    (place / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": code}))
    (place / "mine.py").write_text(
        "import transformers\n\n\nclass Settings(transformers.BertConfig):\n    model_type = 'mine'\n\n\n"
        "class Mine(transformers.BertModel):\n    config_class = Settings\n"
    )
    for spec, trusted in (("", False), (", trust_remote_code=true", False)):
        with pytest.raises(NetxformError, match="X0902"):
            nx.apply(f'model net = hf.AutoModel("small"{spec})\nfreeze **', root=folder, trust_code=trusted)
    with pytest.raises(NetxformError, match=r"X0902[\s\S]*trust_remote_code=true"):
        nx.apply('model net = hf.AutoModel("small")\nfreeze **', root=folder, trust_code=True)
    made = nx.apply('model net = hf.AutoModel("small", trust_remote_code=true)\nfreeze **', root=folder, trust_code=True)
    assert made.model(torch.zeros(1, 16, dtype=torch.long)) is not None


def test_pictures(folder: Path) -> None:
    """The shape of the input is read off the configuration."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
    (folder / "vit" / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": 32})
    )
    nx.apply('model net = hf.AutoModelForImageClassification("vit")\nfreeze **', root=folder, out=folder / "b")
    assert json.loads((folder / "b" / "preprocessor_config.json").read_text())["size"] == 32
