"""Sealed models: a model leaves as two parts, and only both, with a recipient's private key, open it."""

from trainwright.sealing.errors import (
    ChunkError,
    CommitmentError,
    DigestError,
    HeaderMacError,
    KeyTextError,
    MalformedError,
    NotSealedError,
    PartsMismatchError,
    PublisherError,
    RecipientError,
    SealedModelError,
    SignatureError,
    SizeError,
    SourceChangedError,
    UnsupportedError,
)
from trainwright.sealing.keys import (
    PrivateKey,
    PublisherKey,
    Recipient,
    VerifyKey,
    read_recipients,
    write_public_key,
)
from trainwright.sealing.opener import Inspection, Opened, inspect, open_sealed
from trainwright.sealing.sealer import seal

__all__ = [
    "ChunkError",
    "CommitmentError",
    "DigestError",
    "HeaderMacError",
    "Inspection",
    "KeyTextError",
    "MalformedError",
    "NotSealedError",
    "Opened",
    "PartsMismatchError",
    "PrivateKey",
    "PublisherError",
    "PublisherKey",
    "Recipient",
    "RecipientError",
    "SealedModelError",
    "SignatureError",
    "SizeError",
    "SourceChangedError",
    "UnsupportedError",
    "VerifyKey",
    "inspect",
    "open_sealed",
    "read_recipients",
    "seal",
    "write_public_key",
]
