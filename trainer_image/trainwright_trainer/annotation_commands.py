"""`trainwright-trainer annotations`: the platform's stream into the data trees."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from trainwright.cli.output import print_error
from trainwright.contract import Directories
from trainwright.delivery.credentials import find_ca
from trainwright.errors import ConfigurationError, StepError
from trainwright_trainer.ingestion.address import StreamAddress, read_credentials
from trainwright_trainer.ingestion.broker import find_end
from trainwright_trainer.ingestion.dead_letters import LostLetter
from trainwright_trainer.ingestion.following import Follower, Moment
from trainwright_trainer.ingestion.ingestor import Ingestor, Results
from trainwright_trainer.ingestion.revision import RevisionPublisher
from trainwright_trainer.ingestion.telemetry import Telemetry, TelemetryServer
from trainwright_trainer.logs import set_up_logging
from trainwright_trainer.reporting import ApiServer
from trainwright_trainer.standalone.variables import read_stream_settings
from trainwright_trainer.stopping import StopRequest

commands = typer.Typer(
    no_args_is_help=True, help="The platform's annotation stream, and the data trees that it is read into."
)
_LOG = logging.getLogger(__name__)
_GRACE_SECONDS = 30.0

EnvFile = Annotated[Path, typer.Option(help="The file of variables; the environment wins.")]
Credentials = Annotated[
    Path | None,
    typer.Option(help="RABBITMQ_USER, RABBITMQ_PASSWORD, perhaps ca.crt, as a Secret mounts them."),
]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS, and verify the broker's certificate.")]
Authority = Annotated[
    Path | None,
    typer.Option(help="With --tls: who signed it; else the credentials' ca.crt, or the system's."),
]
Sync = Annotated[
    bool,
    typer.Option("--sync/--no-sync", help="Whether each file survives a loss of power before it counts."),
]


@dataclass(frozen=True)
class _Opened:
    address: StreamAddress
    ingestor: Ingestor


@commands.command()
def follow(  # noqa: PLR0913, PLR0917 - one parameter per option
    env_file: EnvFile = Path(".env"),
    credentials: Credentials = None,
    tls: Tls = False,
    authority: Authority = None,
    sync: Sync = True,
    listen: Annotated[
        str,
        typer.Option(
            help="HOST:PORT of /metrics, /healthz and /readyz, :PORT for every host; empty for none."
        ),
    ] = "",
    service_account: Annotated[
        Path | None, typer.Option(help="In a cluster: token and ca.crt, to publish the trees' revision with.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="With --service-account: where the claim is.")] = "",
    claim: Annotated[str, typer.Option(help="With --service-account: the claim that holds the trees.")] = "",
) -> None:
    """Apply every message as it comes, until SIGTERM."""
    if service_account is not None and not (namespace and claim):
        raise typer.BadParameter("--service-account needs --namespace and --claim")
    with _open(env_file, credentials, tls, authority, sync) as opened, ExitStack() as stack:
        telemetry = Telemetry(opened.ingestor)
        tells: list[Callable[[Moment], None]] = [telemetry.tell]
        if listen:
            stack.enter_context(_serve(telemetry, listen))
        publisher = None
        if service_account is not None:
            server = ApiServer.from_environment(service_account)
            publisher = RevisionPublisher(server, namespace, claim, opened.ingestor)
            tells.append(publisher.tell)
        request = stack.enter_context(StopRequest(_GRACE_SECONDS, lambda: None))

        def tell(moment: Moment) -> None:
            for each in tells:
                each(moment)

        Follower(opened.address, opened.ingestor, request.stop, tell).follow()
        if publisher is not None:
            publisher.finish()
        _LOG.info("stopped at offset %s", opened.ingestor.offset)


@commands.command()
def catch_up(
    env_file: EnvFile = Path(".env"),
    credentials: Credentials = None,
    tls: Tls = False,
    authority: Authority = None,
    sync: Sync = True,
) -> None:
    """Apply what the stream holds now, and end."""
    with _open(env_file, credentials, tls, authority, sync) as opened:
        total, end = Results(), find_end(opened.address)

        def count(moment: Moment) -> None:
            total.messages.update(moment.results.messages)
            total.changed += moment.results.changed
            total.messages["dropped by the stream before they were read"] += moment.dropped

        with StopRequest(_GRACE_SECONDS, lambda: None) as request:
            offset = Follower(opened.address, opened.ingestor, request.stop, count).catch_up(end)
        what = ", ".join(f"{number} {result}" for result, number in sorted(total.messages.items()) if number)
        typer.echo(f"at offset {offset}: {what or 'nothing new'}; {total.changed} annotations changed")


@commands.command()
def replay_dead_letters(env_file: EnvFile = Path(".env"), credentials: Credentials = None) -> None:
    """Try the messages again that could not be applied; those that can be leave the folder."""
    with _open(env_file, credentials, tls=False, authority=None, sync=True) as opened:
        results = opened.ingestor.replay_dead_letters()
        letters = opened.ingestor.dead_letters
        for letter in letters:
            what = letter.note.name if isinstance(letter, LostLetter) else f"{letter.offset} {letter.rule}"
            typer.echo(f"{what}: {letter.reason}")
        typer.echo(f"{results.messages['applied']} applied, {len(letters)} left in {letters.folder}")


@commands.command()
def rewind(env_file: EnvFile = Path(".env"), credentials: Credentials = None) -> None:
    """Let the next start read the stream from its beginning, for one that was made anew; all else stays."""
    with _open(env_file, credentials, tls=False, authority=None, sync=True) as opened:
        opened.ingestor.rewind()
        typer.echo("the next start reads the stream from its beginning; what is applied stays as it is")


def _serve(telemetry: Telemetry, listen: str) -> TelemetryServer:
    host, _, port = listen.rpartition(":")
    try:
        return TelemetryServer(telemetry, host.strip("[]"), int(port))
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"can't listen at {listen}: {error}",
            hint="--listen takes HOST:PORT, or :PORT, of this machine, with a port that nobody else has.",
        ) from error


@contextmanager
def _open(
    env_file: Path, credentials: Path | None, tls: bool, authority: Path | None, sync: bool
) -> Iterator[_Opened]:
    """Open what the settings name; an error ends the program with its sentence, hint and exit code."""
    set_up_logging(sys.stderr)
    try:
        told = {} if credentials is None else read_credentials(credentials)
        if authority is None and credentials is not None:
            authority = find_ca(credentials)
        settings = read_stream_settings(env_file, {**os.environ, **told})
        stream, folders = settings.annotation_stream, settings.folders
        address = StreamAddress(
            stream.host,
            stream.port,
            stream.queue,
            stream.user,
            stream.password.get_secret_value(),
            tls,
            authority,
        )
        directories = Directories(data=folders.data, seed=folders.seed, deleted=folders.deleted)
        with Ingestor(folders.root, directories, sync=sync) as ingestor:
            gc.freeze()  # what is there by now stays: of a batch's time a tenth went into looking at it
            yield _Opened(address, ingestor)
    except StepError as error:
        print_error(error)
        raise typer.Exit(int(error.exit_code)) from error
