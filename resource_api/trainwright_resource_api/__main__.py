"""The command line of the resource API: serve, accounts, signing keys."""

from __future__ import annotations

import getpass
import logging
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from trainwright_resource_api.accounts import AccountError, Role, add_account, list_accounts, remove_account
from trainwright_resource_api.application import create_app
from trainwright_resource_api.perimeter import configure_logging
from trainwright_resource_api.secret_files import SecretFileError
from trainwright_resource_api.settings import MIB, Settings
from trainwright_resource_api.tokens import KEYS_FILE, rotate_keys

LOG = logging.getLogger("trainwright_resource_api")
DRAIN_SECONDS = 20

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keep small parts and pointers of models.",
)
user = typer.Typer(no_args_is_help=True, help="Accounts: who may log in, and what they may do.")
keys = typer.Typer(no_args_is_help=True, help="The keys that sign tokens.")
app.add_typer(user, name="user")
app.add_typer(keys, name="keys")

DataOption = Annotated[Path, typer.Option(help="Folder of the stored files.", envvar="RESOURCE_API_DATA")]
UsersOption = Annotated[Path, typer.Option(help="File of the accounts.", envvar="RESOURCE_API_USERS")]


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command line
    data: DataOption,
    users: UsersOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one and says which.")] = 8080,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key, PEM.")] = None,
    cdn: Annotated[
        Path | None, typer.Option(help="The server's cdn.yaml.", envvar="RESOURCE_API_CDN")
    ] = None,
    token_seconds: Annotated[int, typer.Option(help="How long a login is good for.")] = 900,
    max_upload_mib: Annotated[int, typer.Option(help="Largest file taken, in MiB.")] = 8192,
    login_attempts: Annotated[
        int, typer.Option(help="Failed logins per account and address, a minute.")
    ] = 10,
    group_readable: Annotated[
        bool, typer.Option(help="Take secret files their group may read (Kubernetes' fsGroup).")
    ] = False,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address of a proxy whose X-Forwarded-For is believed.")
    ] = None,
) -> None:
    """Serve until stopped."""
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    settings = Settings(
        data=data,
        users=users,
        cdn=cdn,
        token_seconds=token_seconds,
        max_upload_bytes=max_upload_mib * MIB,
        login_attempts=login_attempts,
        group_readable=group_readable,
    )
    configure_logging()
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        proxy_headers=bool(trusted_proxy),
        forwarded_allow_ips=trusted_proxy or None,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    listen(config, host, port)


def listen(config: uvicorn.Config, host: str, port: int) -> None:
    """Run the server on a socket of ours, so that a free port is known before the first request."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        scheme = "https" if config.ssl_keyfile else "http"
        address, bound = listener.getsockname()[:2]
        shown = f"[{address}]" if family == socket.AF_INET6 else address
        LOG.info("listening", extra={"fields": {"url": f"{scheme}://{shown}:{bound}"}})
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if not server.started:
            sys.exit(3)


@user.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="What is sent as `email` in a login.")],
    role: Annotated[Role, typer.Option(help="publisher: upload and get; reader: get.")],
    users: UsersOption,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password; else it is asked for, or read from stdin.")
    ] = None,
    replace: Annotated[bool, typer.Option(help="Give an existing account a new password and role.")] = False,
) -> None:
    """Add an account."""
    add_account(users, name, role, read_password(password_file), replace=replace)


@user.command("remove")
def remove_user(name: str, users: UsersOption) -> None:
    """Remove an account; its tokens are refused at once."""
    remove_account(users, name)


@user.command("list")
def list_users(users: UsersOption) -> None:
    """Print names and roles."""
    for account in list_accounts(users):
        typer.echo(f"{account.role}\t{account.name}")


@keys.command("rotate")
def rotate(
    data: DataOption,
    keep: Annotated[int, typer.Option(min=1, help="Keys kept; 1 ends all sessions.")] = 2,
) -> None:
    """Sign with a new key from now on, also in a running server."""
    typer.echo(rotate_keys(data / KEYS_FILE, keep=keep))


def read_password(file: Path | None) -> str:
    """Return a password that was never on a command line: a file's or stdin's first line, or asked for."""
    if file is not None:
        return file.read_text().partition("\n")[0]
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise AccountError("the two passwords differ")
    return password


def main() -> None:
    """Run the command line; a wrong setting ends it with one sentence."""
    try:
        app()
    except (SecretFileError, AccountError, OSError) as error:
        sys.exit(f"trainwright-resource-api: {error}")


if __name__ == "__main__":
    main()
