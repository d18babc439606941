"""The commands of `trainwright`, and the one place where errors become an exit code."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic.alias_generators import to_camel

from trainwright.cli import keys
from trainwright.cli.output import print_error, print_json, print_lines, show_progress
from trainwright.delivery import (
    ApiCredentials,
    CdnCredentials,
    Fetched,
    Keys,
    ResourceApi,
    Source,
    fetch,
)
from trainwright.errors import StepError
from trainwright.sealing import PrivateKey, VerifyKey, inspect

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Work with sealed models: make keys, fetch and open, inspect.",
)
app.add_typer(keys.app, name="keys")


@app.command("fetch")
def fetch_model(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command line
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="Which model; the newest version.")],
    to: Annotated[Path, typer.Option(help="Folder for the opened model.")],
    api_url: Annotated[str, typer.Option(envvar="AZAION_API_URL", help="Address of the resource API.")],
    private_key: Annotated[
        Path, typer.Option(envvar="TRAINWRIGHT_PRIVATE_KEY", help="Your private key file.")
    ],
    publisher: Annotated[
        list[Path],
        typer.Option(envvar="TRAINWRIGHT_PUBLISHERS", help="Verify key file of a trusted publisher; repeat."),
    ],
    api_credentials: Annotated[
        Path | None,
        typer.Option(
            envvar="TRAINWRIGHT_API_CREDENTIALS",
            help="Folder with AZAION_API_EMAIL, AZAION_API_PASSWORD and perhaps ca.crt; "
            "else the environment variables of these names.",
        ),
    ] = None,
    cdn_credentials: Annotated[
        Path | None,
        typer.Option(
            envvar="TRAINWRIGHT_CDN_CREDENTIALS",
            help="Folder with cdn.yaml and perhaps ca.crt; else the API is asked for them.",
        ),
    ] = None,
    folder: Annotated[
        str, typer.Option(envvar="TRAINWRIGHT_FOLDER", help="Folder of the model on both servers.")
    ] = "models",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch a model's two parts, check them, and open them to DIR/MODEL.VERSION.onnx."""
    name, _, version = model.partition("@")
    opening = Keys(PrivateKey.from_file(private_key), [VerifyKey.from_file(path) for path in publisher])
    account = (
        ApiCredentials.from_folder(api_credentials)
        if api_credentials
        else ApiCredentials.from_environment(os.environ)
    )
    cdn = CdnCredentials.from_folder(cdn_credentials, "downloader") if cdn_credentials else None
    source = Source(ResourceApi(api_url, account), folder, cdn)
    with show_progress(f"fetching {model} from {source.api.url}"):
        fetched = fetch(name, version or None, source, opening, to)
    _print_fetched(fetched, as_json=as_json)


@app.command("inspect")
def inspect_part(
    small: Annotated[Path, typer.Argument(help="A small part.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a small part says of itself; nothing of it is verified, and no key is needed."""
    facts = asdict(inspect(small))
    if as_json:
        print_json({to_camel(key): value for key, value in facts.items()})
        return
    shown = {**facts, "recipients": ", ".join(facts["recipients"])}
    shown["algorithms"] = ", ".join(facts["algorithms"].values())
    print_lines(*(f"{key.replace('_', ' '):<15} {value}" for key, value in shown.items()))


def main() -> None:
    """Run the command line; what goes wrong is one sentence with a hint, and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        app()
    except (StepError, OSError) as error:
        print_error(error)
        sys.exit(1)


def _print_fetched(fetched: Fetched, *, as_json: bool) -> None:
    opened, pointer = fetched.opened, fetched.pointer
    if as_json:
        print_json(
            {
                "path": str(opened.path),
                "digest": opened.digest,
                "size": opened.size,
                "model": pointer.model,
                "version": pointer.version,
                "fileId": pointer.file_id,
                "publisher": opened.publisher,
                "parts": {
                    "small": {"size": pointer.small.size, "digest": pointer.small.digest},
                    "big": {"size": pointer.big.size, "digest": pointer.big.digest},
                },
            }
        )
        return
    print_lines(
        f"{opened.path}",
        f"  {pointer.model} {pointer.version}, {opened.size} bytes, signed by {opened.publisher}",
        f"  {opened.digest}",
    )
