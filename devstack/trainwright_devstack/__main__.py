"""The command line of the devstack: up, down, status, demo, annotate."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from trainwright.errors import StepError
from trainwright_devstack.acquisition import AcquisitionError
from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import IMAGE_SIZE, AnnotationMessage, generate_annotations
from trainwright_devstack.api import Api, ApiError, describe
from trainwright_devstack.binaries import BinariesError
from trainwright_devstack.demo.scenario import Demo, DemoError
from trainwright_devstack.installation import InstallationError
from trainwright_devstack.processes import Process, ProcessError
from trainwright_devstack.stack import (
    ANNOTATIONS,
    Devstack,
    StackError,
    StackOptions,
    is_up,
    start_broker,
    take_down,
)
from trainwright_devstack.state import DEFAULT_FOLDER, STATE_FILE, RabbitMqState, StackState
from trainwright_devstack.streamreaders import hand_out_account, write_stream_files
from trainwright_trainer.ingestion.address import StreamAddress

INIT = 1
UP_SECONDS = 3600.0

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A whole Trainwright on this machine: cluster, S3 server, resource API, operator.",
)

FolderOption = Annotated[Path, typer.Option(help="Where the stack keeps everything.")]


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running and return.")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="Use this cluster; start none.")] = None,
    nodes: Annotated[
        str, typer.Option(help="`process`: run pods as processes of this machine; else the cluster's own.")
    ] = "auto",
    operator: Annotated[bool, typer.Option(help="Install the operator.")] = True,
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Start everything; without --detach it runs until Ctrl-C."""
    if nodes not in {"auto", "process"}:
        raise typer.BadParameter(f"--nodes is auto or process, not {nodes}")
    if is_up(folder):
        raise StackError(f"a stack is up in {folder}; stop it with `trainwright-devstack down`")
    if detach:
        _detach(folder)
        return
    options = StackOptions(kubeconfig, process_node=nodes == "process", operator=operator)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with Devstack(folder, options, _say) as stack:
            _tell(folder, stack.state)
            signal.pause()
    except KeyboardInterrupt:
        _say("stopped")


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes other images and weights.")] = 0,
    kubeconfig: Annotated[Path | None, typer.Option(help="Use this cluster; start none.")] = None,
    output: Annotated[Path, typer.Option(help="Where result.json and the picture go.")] = Path("build/demo"),
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Train, publish, fetch and open a model: on the stack that is up, else on one of its own."""
    console = Console()
    with _open_stack(folder, kubeconfig) as state:
        result = Demo(state, output, console, seed).play()
    console.print(f"demo passed: mAP50 {result['mAP50']:.3f} on {result['testImages']} test images")


@app.command()
def annotate(  # noqa: PLR0913, PLR0917 - one parameter per option
    messages: Annotated[int, typer.Option(min=1, help="How many are published.")] = 1000,
    image_size: Annotated[
        int, typer.Option(min=32, max=1024, help="Width and height, in pixels.")
    ] = IMAGE_SIZE,
    poison: Annotated[float, typer.Option(min=0, max=1, help="The share that nobody can apply.")] = 0.001,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same gives the same messages; by default a new one.")
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="Where runs get the account that reads the stream.")
    ] = "default",
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Publish what people do to generated images on the stack's RabbitMQ, which the first time starts."""
    chosen = int(time.time()) if seed is None else seed
    state, broker = start_broker(folder, _say)
    with Api(state.cluster.kubeconfig) as api:
        hand_out_account(api, namespace, state, broker)
    generated = generate_annotations(messages, seed=chosen, image_size=image_size, poison=poison)
    poisoned = _publish(broker, generated, messages)
    files = write_stream_files(folder / ANNOTATIONS, state, broker)
    follow = f"trainwright-trainer annotations catch-up --env-file {files.variables}"
    _say(f"published     {messages} messages on {broker.stream}, {poisoned} of them poison; seed {chosen}")
    _say(f"read them     {follow}")
    _say(f"train on them kubectl apply -n {namespace} -f {files.run}")


def _publish(broker: RabbitMqState, messages: Iterator[AnnotationMessage], total: int) -> int:
    """Publish messages, and return how many of them are poison."""
    address = StreamAddress(broker.host, broker.port, broker.stream, broker.user, broker.password)
    poisoned = 0

    def counted() -> Iterator[AnnotationMessage]:
        nonlocal poisoned
        for message in messages:
            poisoned += bool(message.poison)
            yield message

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("publishing", total=total)
        publish_annotations(
            address, counted(), create=True, tell=lambda done: progress.update(task, completed=done)
        )
    return poisoned


@contextmanager
def _open_stack(folder: Path, kubeconfig: Path | None) -> Iterator[StackState]:
    state = StackState.read(folder)
    if state is not None and is_up(folder):
        yield state
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with Devstack(folder, StackOptions(kubeconfig), _say) as stack:
        yield stack.state


@app.command()
def down(folder: FolderOption = DEFAULT_FOLDER) -> None:
    """Stop everything, also what a crash left behind."""
    _say("stopped" if take_down(folder) else "nothing was running")


@app.command()
def status(folder: FolderOption = DEFAULT_FOLDER) -> None:
    """Print what is up; the exit code is 1 when nothing is."""
    state = StackState.read(folder)
    if state is None or not is_up(folder):
        _say("no stack is up")
        raise typer.Exit(1)
    _tell(folder, state)


def _detach(folder: Path) -> None:
    """Start the same command again in the background, and show what it says until it is up."""
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    supervisor = Process(folder / "supervisor")
    supervisor.log.unlink(missing_ok=True)
    supervisor.start([sys.executable, "-m", "trainwright_devstack", *arguments], owner=INIT)
    shown = 0
    deadline = time.monotonic() + UP_SECONDS
    while True:
        alive = supervisor.alive()
        text = supervisor.log.read_text()
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if not alive or time.monotonic() > deadline:
            raise typer.Exit(1)
        if (folder / STATE_FILE).exists():
            return
        time.sleep(0.2)


def _tell(folder: Path, state: StackState) -> None:
    cluster, api = state.cluster, state.resource_api
    _say(f"cluster       {cluster.description}")
    _say(f"S3            {state.s3.endpoint} bucket {state.s3.bucket}")
    _say(f"resource API  {api.url} accounts {api.publisher.email}, {api.reader.email}")
    if state.rabbit_mq:
        _say(f"RabbitMQ      {state.rabbit_mq.host}:{state.rabbit_mq.port} stream {state.rabbit_mq.stream}")
    _say(f"credentials   {folder / STATE_FILE}")
    _say(f"use it with   export KUBECONFIG={cluster.kubeconfig}")


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; what can't be done ends it with a sentence."""
    try:
        app()
    except (DemoError, StackError, ProcessError, BinariesError, AcquisitionError, InstallationError) as error:
        sys.exit(f"trainwright-devstack: {error}")
    except StepError as error:
        sys.exit(f"trainwright-devstack: {error}. {error.hint}")
    except ApiError as error:
        sys.exit(f"trainwright-devstack: the API server: {describe(error)}")


if __name__ == "__main__":
    main()
