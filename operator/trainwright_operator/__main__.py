"""The operator's command: `trainwright-operator run --settings FILE`."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from pydantic import ValidationError

from trainwright_operator.leadership import Identity
from trainwright_operator.login import Login
from trainwright_operator.logs import log_as_json
from trainwright_operator.service import Start, operate
from trainwright_operator.settings import read_settings

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

app = typer.Typer(help="Trainwright's operator.", add_completion=False, no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """Trainwright's operator."""


@app.command()
def run(
    settings: Annotated[Path, typer.Option(help="The operator's settings, a YAML file.")],
    service_account: Annotated[Path, typer.Option(help="Folder of the pod's token.")] = SERVICE_ACCOUNT,
    kubeconfig: Annotated[Path | None, typer.Option(help="Log in by this file instead.")] = None,
    name: Annotated[str, typer.Option(envvar="POD_NAME", help="Who holds the Lease: the pod's name.")] = "",
    namespace: Annotated[
        str, typer.Option(envvar="POD_NAMESPACE", help="The Lease's namespace: the pod's.")
    ] = "trainwright-system",
) -> None:
    """Watch TrainingRuns and bring each to where it should be, until SIGTERM.

    Of several operators one acts; the others wait for its Lease.
    """
    try:
        options = read_settings(settings)
    except ValidationError as error:
        typer.echo(f"{settings}: {error}", err=True)
        raise typer.Exit(64) from None
    log_as_json(options.log_level)
    login = Login.from_kubeconfig(kubeconfig) if kubeconfig else Login.from_service_account(service_account)
    asyncio.run(operate(Start(options, settings, login, Identity(name or _make_name(), namespace))))


def _make_name() -> str:
    """Return a name that no other operator has, also one that is started again."""
    return f"{socket.gethostname()}-{uuid4().hex[:8]}"


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
