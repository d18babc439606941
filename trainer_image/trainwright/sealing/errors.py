"""Why sealing or opening refuses, as one tree: whoever opens a model can tell what is wrong with it.

SealedModelError              nothing was written under the final name
├── NotSealedError            this is not a part of a sealed model
├── UnsupportedError          a version or an algorithm this reader does not know, by name
├── MalformedError            a field of the header breaks the format
├── SizeError                 a part is shorter or longer than the header says
├── PublisherError            signed by nobody who is trusted here
├── SignatureError            signed by a trusted publisher, but not these bytes
├── PartsMismatchError        the two parts are not of one model
├── DigestError               the big part is not the one that was signed
├── RecipientError            this private key opens no stanza of it
├── HeaderMacError            the header is not the one the data key was wrapped for
├── ChunkError                a chunk of the payload was changed, moved, dropped or doubled
├── CommitmentError           the chunks open, but not to the model that was sealed
├── SourceChangedError        the model changed while it was being sealed
└── KeyTextError              a key file that can't be used
"""

from __future__ import annotations

from trainwright.errors import ConfigurationError, StepError


class SealedModelError(StepError):
    """A model can't be sealed or opened; nothing was written under the final name."""


class NotSealedError(SealedModelError):
    """The file is not a part of a sealed model."""


class UnsupportedError(SealedModelError):
    """The file names a version or an algorithm this reader does not know."""


class MalformedError(SealedModelError):
    """A field of the header breaks the format."""


class SizeError(SealedModelError):
    """A part is shorter or longer than the header says."""


class PublisherError(SealedModelError):
    """The model is signed by nobody who is trusted here."""


class SignatureError(SealedModelError):
    """The signature of a trusted publisher does not fit these bytes."""


class PartsMismatchError(SealedModelError):
    """The two parts do not belong to one model."""


class DigestError(SealedModelError):
    """The big part is not the one that was signed."""


class RecipientError(SealedModelError):
    """The private key opens no stanza of this model."""


class HeaderMacError(SealedModelError):
    """The header is not the one that the data key was wrapped for."""


class ChunkError(SealedModelError):
    """A chunk of the payload was changed, moved, dropped or doubled."""


class CommitmentError(SealedModelError):
    """The chunks open, but not to the model that was sealed."""


class SourceChangedError(SealedModelError):
    """The model changed while it was being sealed."""


class KeyTextError(SealedModelError, ConfigurationError):
    """A key file can't be used; no retry helps until it is mended."""
