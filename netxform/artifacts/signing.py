"""Signatures of bundles by OpenSSF Model Signing: a sigstore bundle beside the files, over the digest of every one of them.

The stock tool reads them: `model_signing verify key BUNDLE --signature BUNDLE/model.sig --public_key KEY.pub`. Keys are
elliptic-curve keys in PEM files (P-256, P-384, P-521): `openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem`, then
`openssl ec -in KEY.pem -pubout -out KEY.pub`. Nothing is asked of a network, and no cryptography is ours.
"""

from __future__ import annotations

import importlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netxform.artifacts.manifest import CERTIFICATE, SIGNATURE, not_yours, sealed
from netxform.errors import NetxformError, fail
from netxform.sources.parts import cannot_write, sync
from netxform.sources.trust import room_for

_KEY = 1 << 16


@dataclass(frozen=True, slots=True)
class Seal:
    """Who vouches for a bundle: nobody, somebody unknown (no key was given to check with), or the owner of the key."""

    signed: bool
    key: str | None

    def __str__(self) -> str:
        if not self.signed:
            return "unsigned: who made this bundle is not known; a stranger can change it and write a certificate that fits"
        if self.key is None:
            return f"signed, not checked: give the signer's public key, `--key PUBLIC.pem` ({SIGNATURE})"
        return f"signed by the owner of {self.key}: every file is as it was signed"


def sign(folder: Path, key: Path) -> Path:
    """Sign every file of a bundle with a private key; the signature lies in the bundle.

    Raises NetxformError X0814 (`model-signing` is not installed), X0907 (not a private key of an elliptic curve), X0819.
    """
    made = signer(key)
    target = folder / SIGNATURE
    part = folder / f"{SIGNATURE}.part"
    try:
        made.set_hashing_config(_hashing()).sign(folder, part)
        part.chmod(stat.S_IMODE((folder / CERTIFICATE).stat().st_mode))
        sync(part)
        os.replace(part, target)
        sync(folder)
    except OSError as error:
        raise cannot_write(f"`{target}`", error) from error
    except ValueError as error:
        raise fail("X0907", f"the bundle could not be signed: {_first(error)}", helps=(_MAKE,)) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def signer(key: Path) -> Any:
    """What signs with the private key in a file. Raises NetxformError X0814, X0907 as `sign` does."""
    tools = _tools("signing")
    try:
        room_for(key, _KEY)
        return tools.Config().use_elliptic_key_signer(private_key=key)
    except (NetxformError, OSError, ValueError, TypeError, AttributeError) as error:
        raise fail("X0907", f"`{key}` is no private key: {_first(error)}", helps=(_MAKE,)) from error


def verifier(key: Path) -> Any:
    """What checks with the public key in a file. Raises NetxformError X0814, X0907 as `check` does."""
    tools = _tools("verifying")
    try:
        room_for(key, _KEY)
        return tools.Config().use_elliptic_key_verifier(public_key=key)
    except (NetxformError, OSError, ValueError, TypeError, AttributeError) as error:
        raise fail("X0907", f"`{key}` is no public key: {_first(error)}", helps=(_MAKE,)) from error


def sign_bundle(folder: Path, key: Path) -> Path:
    """Sign a bundle that is there; its bytes are compared with its certificate first."""
    sealed(folder)
    return sign(folder, key)


def check(folder: Path, key: Path | None) -> Seal:
    """Who vouches for the bundle, by the public key in a file.

    Raises NetxformError X0815 (no bundle), X0907 (another key, or a file that is not as it was signed), X0908 (a key is given
    and nothing is signed), X0814 (`model-signing` is not installed).
    """
    try:
        there = (folder / CERTIFICATE).is_file()
    except PermissionError as error:
        raise not_yours(folder, error) from error
    if not there:
        raise fail("X0815", f"`{folder.name}` is no bundle of netxform", helps=(f"a bundle holds {CERTIFICATE}",))
    signed = (folder / SIGNATURE).exists() or (folder / SIGNATURE).is_symlink()
    if key is None:
        return Seal(signed, None)
    if not signed:
        raise fail(
            "X0908",
            f"`{folder.name}` is not signed",
            notes=(f"there is no {SIGNATURE} in it: somebody may have taken it away",),
            helps=("leave `--key` out if you trust where the folder comes from",),
        )
    asked = verifier(key)
    try:
        room_for(folder / SIGNATURE, 1 << 24)
        _same_form(folder / SIGNATURE)
        asked.set_hashing_config(_hashing()).verify(folder, folder / SIGNATURE)
    except Exception as error:
        raise fail(
            "X0907",
            f"the signature of `{folder.name}` does not hold: {_first(error)}",
            notes=("a file was changed, added or taken away after it was signed, or another key signed it",),
            helps=("take the bundle from its author again, and the key by another way",),
        ) from error
    return Seal(True, str(key))


def _same_form(path: Path) -> None:
    """Raises ValueError where a signature is not written as the tool writes it."""
    form: Any = importlib.import_module("model_signing._signing.sign_sigstore_pb")
    text = path.read_text(encoding="utf-8")
    if form.Signature.read(path).bundle.to_json() != text:
        raise ValueError(f"{SIGNATURE} is not written as the tool writes it")


def _hashing() -> Any:
    """Every file counts, those of git too, save the signature itself."""
    return _tools("hashing").Config().set_ignored_paths(paths=[SIGNATURE, f"{SIGNATURE}.part"], ignore_git_paths=False)


def _tools(part: str) -> Any:
    try:
        return importlib.import_module(f"model_signing.{part}")
    except ImportError as error:
        raise fail("X0814", "`model-signing` is not installed", helps=("pip install 'netxform[sign]'",)) from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0] or type(error).__name__


_MAKE = (
    "make a pair: `openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem`, `openssl ec -in KEY.pem -pubout -out KEY.pub`"
)
