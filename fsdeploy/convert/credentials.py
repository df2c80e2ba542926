"""Content credentials (C2PA): a signed manifest inside the output that says it was edited with a trained model.

Needs the optional extra `provenance` (c2pa-python). Signing is the last thing that happens to a file: any later change
makes the signature invalid, and encoding it again drops the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy import __version__
from fsdeploy.convert.provenance import COMPOSITE, read_source_type
from fsdeploy.convert.shard import digest_of
from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.files import atomic_path

MIME_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".tif": "image/tiff", ".tiff": "image/tiff",
    ".webp": "image/webp", ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".avi": "video/avi",
    ".gif": "image/gif",
}  # fmt: skip
"""Kinds of files that can be signed. Matroska and WebM cannot."""


_HOLDS = ("Valid", "Trusted")


@dataclass(frozen=True)
class SigningKey:
    """A certificate chain (leaf first) and its private key, both PEM."""

    certificate: bytes
    key: bytes
    algorithm: str
    """COSE name: ES256, ES384, ES512, PS256 or ED25519."""

    @classmethod
    def load(cls, certificate: Path, key: Path) -> SigningKey:
        """Read the two files.

        Raises:
            InputError: unreadable, encrypted, or not of a kind that C2PA signs with; or the extra is not installed.
        """
        _library()
        try:
            chain, private = certificate.read_bytes(), key.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror or error}") from error
        if b"-----BEGIN CERTIFICATE-----" not in chain:
            raise InputError(f"{certificate} holds no certificate in PEM form: give the chain, leaf first")
        return cls(chain, private, _algorithm(private, key))


def _algorithm(private: bytes, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(private, password=None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no plain private key in PEM form ({error}): decrypt or convert it") from error
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        return {256: "ES256", 384: "ES384", 521: "ES512"}.get(loaded.curve.key_size, "ES256")
    if isinstance(loaded, rsa.RSAPrivateKey):
        return "PS256"
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return "ED25519"
    raise InputError(f"{path} holds a key of a kind that content credentials do not know: use ECDSA P-256")


def check_signable(suffix: str) -> None:
    """Refuse a kind of file that cannot be signed, before any work is done.

    Args:
        suffix: of the files that will be written, with its dot.

    Raises:
        InputError: of that kind.
    """
    if suffix.lower() not in MIME_TYPES:
        kinds = ", ".join(sorted(MIME_TYPES))
        raise InputError(f"{suffix or 'such'} files cannot hold content credentials: write {kinds}")


def sign_outputs(output: Path, suffix: str, signing: SigningKey, report: Mapping[str, Any], source: Path) -> None:
    """Sign a finished file, or every marked file of a finished folder that is not signed yet.

    Args:
        suffix: of the folder's files, with its dot.
        report: the account of the conversion: digests of its model and settings go into the signature.
        source: the video or the folder of frames that it was made from.

    Raises:
        InputError, CheckFailedError: as `sign`; the files before are signed.
    """
    facts = {"model_sha256": report["model"]["sha256"], "settings_sha256": digest_of(report["settings"])}
    if not output.is_dir():
        sign(output, signing, facts, source)
        return
    originals = {path.stem: path for path in source.iterdir()} if source.is_dir() else {}
    for path in sorted(output.rglob(f"*{suffix}")):
        # Frames that were not swapped carry no mark, and have nothing to be signed for.
        if read_source_type(path) is not None and validation_state(path) not in _HOLDS:
            sign(path, signing, facts, originals.get(path.stem))


def sign(path: Path, signing: SigningKey, facts: dict[str, Any], source: Path | None = None) -> None:
    """Sign a finished file in place and read the signature back.

    Args:
        facts: what the edit action records (model digest, settings digest, ...); no names of people.
        source: the file this one was made from; its hash is recorded where C2PA knows its kind.

    Raises:
        InputError: the certificate is refused, with the library's reason.
        CheckFailedError: the signature that was written does not hold.
    """
    c2pa = _library()
    settings = c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    context = c2pa.Context(settings)
    agent = {"name": "fsdeploy", "version": __version__}
    manifest = {"claim_generator_info": [agent], "title": path.name, "format": MIME_TYPES[path.suffix.lower()]}
    action = {
        "action": "c2pa.edited", "digitalSourceType": COMPOSITE, "softwareAgent": agent, "parameters": {"facts": facts},
    }  # fmt: skip
    try:
        info = c2pa.C2paSignerInfo(signing.algorithm.lower().encode(), signing.certificate, signing.key, None)
        signer = c2pa.Signer.from_info(info)
        builder = c2pa.Builder(json.dumps(manifest), context)
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        builder.add_action(action)
        if source is not None and source.is_file() and source.suffix.lower() in MIME_TYPES:
            parent = {"title": source.name, "relationship": "parentOf"}
            with source.open("rb") as stream:
                builder.add_ingredient(parent, MIME_TYPES[source.suffix.lower()], stream)
        with atomic_path(path) as signed, path.open("rb") as before, signed.open("w+b") as after:
            builder.sign(signer, MIME_TYPES[path.suffix.lower()], before, after)
    except c2pa.C2paError as error:
        raise InputError(f"{path} could not be signed ({error}): check certificate and key") from error
    state = validation_state(path)
    if state not in _HOLDS:
        raise CheckFailedError(f"the signature of {path} does not hold ({state}): check certificate and key")


def validation_state(path: Path) -> str:
    """ "Valid", "Trusted" or "Invalid" as the C2PA library finds it; "Unsigned" without a manifest."""
    c2pa = _library()
    try:
        with path.open("rb") as stream, c2pa.Reader(MIME_TYPES[path.suffix.lower()], stream) as reader:
            return str(reader.get_validation_state())
    except c2pa.C2paError.ManifestNotFound:
        return "Unsigned"
    except c2pa.C2paError as error:
        return f"Invalid: {error}"


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise InputError("--sign needs c2pa-python: pip install 'fsdeploy[provenance]'") from error
    return c2pa
