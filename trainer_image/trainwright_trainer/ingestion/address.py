"""Where a stream is, and what a failure to reach it means for whoever said so."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from rstream import exceptions
from rstream.client import BrokerResolutionMaxRetryError

from trainwright.contract import AnnotationStream
from trainwright.delivery.credentials import find_ca, read_secret
from trainwright.errors import ConfigurationError, NetworkError, StepError

CREDENTIALS = ("RABBITMQ_USER", "RABBITMQ_PASSWORD")


@dataclass(frozen=True)
class StreamAddress:
    """Where a stream is, and who reads it; with `tls` the broker's certificate is verified."""

    host: str
    port: int
    stream: str
    user: str
    password: str = field(repr=False)
    tls: bool = False
    authority: Path | None = None

    @classmethod
    def of(cls, stream: AnnotationStream, credentials: Path | None) -> StreamAddress:
        """Return where the stream of a plan is; `credentials` is a folder, as a Secret is mounted."""
        if credentials is None:
            raise ConfigurationError(
                "no folder of credentials for the annotation stream is given",
                hint=f"Name a Secret with {' and '.join(CREDENTIALS)}: dataset.annotationStream.credentials.",
            )
        user, password = read_credentials(credentials).values()
        authority = find_ca(credentials)
        port = stream.listening_port
        return cls(stream.host, port, stream.stream, user, password, stream.tls, authority)

    def __str__(self) -> str:
        return f"stream {self.stream!r} of RabbitMQ at {self.host}:{self.port}"


def read_credentials(folder: Path) -> dict[str, str]:
    """Return what a mounted Secret says of who reads the stream, or raise `ConfigurationError`."""
    found = {name: read_secret(folder / name) for name in CREDENTIALS}
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise ConfigurationError(
            f"the credentials in {folder} lack {' and '.join(missing)}", hint="Add the keys to the Secret."
        )
    return found


def explain(error: BaseException, address: StreamAddress) -> StepError | None:
    """Return what the error means for whoever set the address; None, if it means nothing to him."""
    if address.tls and isinstance(error, ConnectionResetError):
        error = ssl.SSLError("the greeting was hung up on")
    for kinds, kind, message, hint in _MEANINGS:
        if isinstance(error, kinds):
            why = getattr(error, "verify_message", None) or str(error) or type(error).__name__
            where = f"{address.host}:{address.port}"
            told = message.format(address=address, where=where, user=address.user, why=why, error=error)
            return kind(told, hint=hint)
    return None


# The first that fits counts: a refused certificate is a failure of TLS, and that one of the connection.
_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], type[StepError], str, str], ...] = (
    (
        (exceptions.AuthenticationFailure, exceptions.SASLAuthenticationFailureLoopback),
        ConfigurationError,
        "RabbitMQ at {where} refuses user {user!r}",
        "Check RABBITMQ_USER and RABBITMQ_PASSWORD; the user `guest` may come from the broker's host only.",
    ),
    (
        (exceptions.VirtualHostAccessFailure, exceptions.AccessRefused),
        ConfigurationError,
        "user {user!r} may not read the {address}",
        "Give the user the right to read it: rabbitmqctl set_permissions.",
    ),
    (
        (exceptions.StreamDoesNotExist,),
        ConfigurationError,
        "there is no {address}",
        "Check the stream's name: the platform creates it, not those who read it.",
    ),
    (
        (ssl.SSLCertVerificationError,),
        ConfigurationError,
        "the certificate of RabbitMQ at {where} is not trusted: {why}",
        "Give the authority that signed it, and the host by the name that is in it.",
    ),
    (
        (ssl.SSLError,),
        ConfigurationError,
        "{where} does not speak TLS",
        "Use the port of the TLS listener, or leave TLS off.",
    ),
    (
        (TimeoutError,),
        NetworkError,
        "{where} does not answer as a RabbitMQ stream",
        "Check that the port is the stream plug-in's (5552), and whether it wants TLS.",
    ),
    (
        (OSError, exceptions.ServerError),
        NetworkError,
        "the {address} can't be reached: {why}",
        "Check host and port, and that the broker runs with the plug-in rabbitmq_stream.",
    ),
    (  # the library looks the leader up in what the broker tells, and takes for granted that it is there
        (exceptions.ClientError, BrokerResolutionMaxRetryError, LookupError, AssertionError),
        NetworkError,
        "the broker does not say who has the {address}: {error!r}",
        "It may be starting, or choosing the stream's leader: try again, and see its log if that lasts.",
    ),
)
