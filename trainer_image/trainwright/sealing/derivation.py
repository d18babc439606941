"""Every secret of the format, and what each is bound to: the keys of a data key, and its wrapping."""

from __future__ import annotations

import hashlib
import hmac

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trainwright.sealing.errors import KeyTextError, RecipientError
from trainwright.sealing.keys import PrivateKey, Recipient
from trainwright.sealing.layout import Header, Prelude, Stanza

PAYLOAD_LABEL = b"trainwright/v1/payload"
HEADER_LABEL = b"trainwright/v1/header"
COMMITMENT_LABEL = b"trainwright/v1/commitment"
RECIPIENT_LABEL = b"trainwright/v1/recipient"
SIGNATURE_LABEL = b"trainwright/v1/signature"
BINDING_CONTEXT = "trainwright.dev sealed model v1 2026-11-21 binding of the big part"

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def start_binding() -> blake3:
    """Return the hash whose digest of the whole big part is stored nowhere."""
    return blake3(derive_key_context=BINDING_CONTEXT)


def derive_key(data_key: bytes, prelude: Prelude, label: bytes) -> bytes:
    """Derive one of the artifact's keys; the label keeps them apart."""
    return HKDF(algorithm=SHA256(), length=32, salt=prelude.salt, info=label).derive(data_key)


def wrap_key(data_key: bytes, prelude: Prelude, binding: bytes, recipient: Recipient) -> Stanza:
    """Encrypt the data key for one recipient, who needs the whole big part to open it."""
    public = X25519PublicKey.from_public_bytes(recipient.raw)
    info = _recipient_info(prelude, recipient.key_id, binding)
    try:
        return Stanza(recipient.key_id, _SUITE.encrypt(data_key, public, info=info))
    except ValueError:  # a point of small order, which no honest key pair has
        raise KeyTextError(f"the public key of {recipient.key_id!r} can't be encrypted to") from None


def unwrap_key(header: Header, binding: bytes, private_key: PrivateKey) -> bytes:
    """Return the data key from the stanza of this key's id."""
    wrapped = {stanza.key_id: stanza.wrapped_key for stanza in header.stanzas}
    if private_key.key_id not in wrapped:
        names = ", ".join(map(repr, wrapped))
        raise RecipientError(
            f"the model is not sealed for the key {private_key.key_id!r}; it is for {names}",
            hint="use the private key of one of them, or have the model sealed for yours",
        )
    info = _recipient_info(header.prelude, private_key.key_id, binding)
    try:
        return _SUITE.decrypt(wrapped[private_key.key_id], private_key.exchange, info=info)
    except InvalidTag:
        raise RecipientError(
            f"the private key {private_key.key_id!r} does not open the stanza of that name",
            hint="another key has the same id, or the parts are not those the key was wrapped for",
        ) from None


def compute_header_mac(data_key: bytes, header: Header) -> bytes:
    """HMAC-SHA256 over prelude, manifest and stanzas."""
    key = derive_key(data_key, header.prelude, HEADER_LABEL)
    return hmac.digest(key, header.encode_authenticated(), "sha256")


def compute_commitment(data_key: bytes, prelude: Prelude, plaintext_digest: bytes) -> bytes:
    """HMAC-SHA256 over the digests of prelude and plaintext: GCM alone commits to neither key nor text."""
    key = derive_key(data_key, prelude, COMMITMENT_LABEL)
    return hmac.digest(key, prelude.digest + plaintext_digest, "sha256")


def build_signed_message(header: Header, prefix_digest: bytes) -> bytes:
    """Return what the publisher signs: the header and the ciphertext of the small part, by digest."""
    return SIGNATURE_LABEL + hashlib.sha256(header.encode_signed()).digest() + prefix_digest


def _recipient_info(prelude: Prelude, key_id: str, binding: bytes) -> bytes:
    name = key_id.encode()
    return RECIPIENT_LABEL + prelude.digest + bytes([len(name)]) + name + binding
