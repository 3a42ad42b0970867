"""Claims and verdict of a bundle as in-toto statements: SCAI 0.2 for what its certificate says, SVR 0.1 for its verdict.

A statement names every file of the bundle with its digest. It is signed as bundles are, by OpenSSF Model Signing: a sigstore
bundle with a DSSE envelope; or it is plain JSON, which proves nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from netxform.artifacts.exchange import replacing
from netxform.artifacts.manifest import CERTIFICATE, sealed
from netxform.artifacts.signing import signer, verifier
from netxform.compiler.remeasure import Verdict
from netxform.errors import fail
from netxform.language.certificate import Certificate, written

STATEMENT = "https://in-toto.io/Statement/v1"
CLAIMS = "https://in-toto.io/attestation/scai/attribute-report/v0.2"
VERDICT = "https://in-toto.io/attestation/svr/v0.1"
_ID = f"https://pypi.org/project/netxform/{version('netxform')}"


def claims(folder: Path) -> dict[str, Any]:
    """What the certificate of a bundle claims: an attribute a claim, with its bound and what was measured."""
    bundle = sealed(folder)
    certificate = bundle.certificate
    evidence = {"name": CERTIFICATE, "digest": {"sha256": _digests(folder, certificate)[CERTIFICATE]}}
    attributes = [
        {
            "attribute": f"NETXFORM_{claim.kind}".upper().replace("-", "_").replace(" ", "_"),
            "conditions": {
                "statement": s.statement,
                "claim": claim.claim,
                "bound": str(claim.bound),
                "measured": str(claim.measured),
                "held": claim.held,
                "in_force": claim.in_force,
            },
            "evidence": evidence,
        }
        for s in certificate.statements
        for claim in s.claims
    ]
    if not attributes:
        raise fail("X0824", f"`{folder.name}` claims nothing: there is nothing to attest")
    return _statement(folder, certificate, CLAIMS, {"attributes": attributes, "producer": {"uri": _ID}})


def verdict(folder: Path, found: Verdict) -> dict[str, Any]:
    """What `verify` found now; only what held is a property. Raises NetxformError X0501 where a claim is broken."""
    if not found.held:
        broken = next(what for what, evidence in found.lines if not evidence.held)
        raise fail("X0501", f"`{folder.name}` does not hold what it claims: `{broken}`", helps=("see `netxform verify`",))
    properties = ["NETXFORM_EVERY_FILE_AS_CERTIFIED", "NETXFORM_MEASURED_CLAIMS_HELD"]
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    predicate = {"verifier": {"id": _ID}, "timeCreated": when, "properties": properties}
    return _statement(folder, sealed(folder).certificate, VERDICT, predicate)


def write(statement: dict[str, Any], out: Path, key: Path | None) -> None:
    """Write a statement, signed with a private key where one is given.

    Raises NetxformError X0818 (the file exists), X0819 (cannot be written), X0907 (no such key), X0814 (`model-signing`).
    """
    if out.exists():
        raise fail("X0818", f"`{out.name}` exists", helps=("nothing is overwritten: remove it, or name another file",))
    with replacing(out) as part:
        if key is None:
            part.write_text(written(statement))
            return
        made = signer(key)
        tools: Any = importlib.import_module("in_toto_attestation.v1.statement")
        subjects = [tools.ResourceDescriptor(name=s["name"], digest=s["digest"]).pb for s in statement["subject"]]
        whole = tools.Statement(subjects, statement["predicateType"], statement["predicate"])
        whole.validate()
        made._signer.sign(SimpleNamespace(statement=whole)).write(part)


def read(path: Path, key: Path) -> dict[str, Any]:
    """The statement in a signed file, if the owner of the public key signed it. Raises NetxformError X0907."""
    form: Any = importlib.import_module("model_signing._signing.sign_sigstore_pb")
    try:
        _, payload = verifier(key)._verifier._verify_signed_content(form.Signature.read(path))
        return cast("dict[str, Any]", json.loads(payload))
    except Exception as error:
        raise fail("X0907", f"the signature of `{path.name}` does not hold: {type(error).__name__}") from error


def _statement(folder: Path, certificate: Certificate, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    subjects = [{"name": n, "digest": {"sha256": d}} for n, d in sorted(_digests(folder, certificate).items())]
    return {"_type": STATEMENT, "subject": subjects, "predicateType": kind, "predicate": predicate}


def _digests(folder: Path, certificate: Certificate) -> dict[str, str]:
    own = hashlib.sha256((folder / CERTIFICATE).read_bytes()).hexdigest()
    return {**(certificate.files or {}), CERTIFICATE: own}
