"""Who may read the stack's stream of annotations: a consumer on this machine, and runs of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from trainwright_devstack import demo
from trainwright_devstack.api import Api
from trainwright_devstack.demo.secrets import replace_object, usable
from trainwright_devstack.kubeconfig import write_private
from trainwright_devstack.state import RabbitMqState, StackState
from trainwright_trainer.annotations.sample import CLASS_NAMES

ACCOUNT, CLAIM, RUN = "annotation-stream", "annotations", "annotated-shapes"
"""Names of the Secret with the account, of the claim with the trees, and of the run."""


@dataclass(frozen=True)
class StreamFiles:
    """`variables` are those of a consumer here, readable by their owner only; `run` has a claim beside it."""

    variables: Path
    run: Path


def write_stream_files(folder: Path, state: StackState, broker: RabbitMqState) -> StreamFiles:
    """Write what a consumer on this machine and a run of the cluster read the stream with."""
    root = folder / "trees"
    root.mkdir(parents=True, exist_ok=True)
    variables = {
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": broker.port,
        "RABBITMQ_USER": broker.user,
        "RABBITMQ_PASSWORD": broker.password,
        "RABBITMQ_QUEUE_NAME": broker.stream,
        "AZAION_ROOT_DIR": root.resolve(),
    }
    files = StreamFiles(folder / "stream.env", folder / "trainingrun.yaml")
    write_private(files.variables, "".join(f"{name}='{value}'\n" for name, value in variables.items()))
    documents = [_claim(), _run(broker, state)]
    files.run.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return files


def hand_out_account(api: Api, namespace: str, state: StackState, broker: RabbitMqState) -> None:
    """Make the Secret that runs of a namespace read the stream with, anew."""
    data = {
        "RABBITMQ_USER": broker.user,
        "RABBITMQ_PASSWORD": broker.password,
        "ca.crt": state.authority.read_text(),
    }
    replace_object(api, namespace, "secrets", usable(ACCOUNT, "stream") | {"stringData": data})


def _claim() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }


def _run(broker: RabbitMqState, state: StackState) -> dict[str, Any]:
    """Return the demo's run, but on what the stream tells of; the model stays in its workspace."""
    run: dict[str, Any] = yaml.safe_load((resources.files(demo) / "trainingrun.yaml").read_text())
    run["metadata"] = {"name": RUN}
    spec = run["spec"]
    for section in ("gate", "delivery"):
        del spec[section]
    spec["dataset"] |= {
        "source": {"persistentVolumeClaim": {"claimName": CLAIM}},
        "annotationStream": {
            "host": broker.host,
            "port": broker.tls_port,
            "stream": broker.stream,
            "credentials": {"secretName": ACCOUNT},
        },
        "classes": {"inline": list(CLASS_NAMES)},
    }
    return run
