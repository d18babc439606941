"""The command `annotations` as its users call it, in the tests' own process."""

from __future__ import annotations

from pathlib import Path

from annotation_stream import draw, single
from typer.testing import CliRunner, Result

from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.__main__ import app
from trainwright_trainer.ingestion.events import Status

CREATED = Status.CREATED
FIRST = [single(f"frame-{n}", CREATED, n, image=draw(n)) for n in range(20)]
"""What a stream of the tests begins with."""


def annotations(
    broker: RabbitMq, root: Path, *command: str, stream: str = "annotations", **changed: str
) -> Result:
    """Run a command in this process; `changed` variables are not the right ones."""
    variables = {
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": str(broker.port),
        "RABBITMQ_QUEUE_NAME": stream,
        "RABBITMQ_USER": broker.account.user,
        "RABBITMQ_PASSWORD": broker.account.password,
        "AZAION_ROOT_DIR": str(root),
        **changed,
    }
    root.mkdir(exist_ok=True)
    return CliRunner().invoke(app, ["annotations", *command], env=variables)


def images(root: Path) -> set[str]:
    return {path.stem for path in root.glob("data*/images/*")}
