"""The operator's command: `trainwright-operator run --settings FILE`."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import kopf
import typer
from pydantic import ValidationError

from trainwright_operator.cluster import ApiError, Login, connect
from trainwright_operator.handlers import Watches, make_kopf_settings, make_registry
from trainwright_operator.health import serve_health
from trainwright_operator.metrics import Metrics
from trainwright_operator.queue import Key, WorkQueue
from trainwright_operator.reconcile import Reconciler
from trainwright_operator.settings import OperatorSettings, read_settings
from trainwright_operator.store import Store

logger = logging.getLogger("trainwright_operator")

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
) -> None:
    """Watch TrainingRuns and bring each to where it should be, until SIGTERM."""
    try:
        options = read_settings(settings)
    except ValidationError as error:
        typer.echo(f"{settings}: {error}", err=True)
        raise typer.Exit(64) from None
    _log_as_json(options.log_level)
    login = Login.from_kubeconfig(kubeconfig) if kubeconfig else Login.from_service_account(service_account)
    asyncio.run(operate(options, login))


async def operate(settings: OperatorSettings, login: Login) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store, metrics = Store(), Metrics()
    async with connect(login) as cluster:
        cluster.on_answer = metrics.count_request
        reconciler = Reconciler(cluster, store, settings, metrics=metrics)
        queue = WorkQueue(metrics.measure(reconciler.reconcile), settings.workers)
        watches = Watches(store, queue)
        metrics.observe(store, queue, lambda: watches.silence)
        async with serve_health(settings.health_port, watches, queue, metrics, settings.relist_seconds):
            await _relist(reconciler, watches, queue)
            logger.info("reconciling", extra={"runs": queue.depth})
            tasks = [
                asyncio.create_task(queue.run()),
                asyncio.create_task(_relist_for_ever(reconciler, watches, queue, settings.relist_seconds)),
                asyncio.create_task(
                    kopf.operator(
                        registry=make_registry(watches, login),
                        settings=make_kopf_settings(),
                        clusterwide=not settings.namespaces,
                        namespaces=settings.namespaces,
                        stop_flag=stop,
                    )
                ),
            ]
            await asyncio.wait([asyncio.create_task(stop.wait()), *tasks], return_when="FIRST_COMPLETED")
            failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for error in failed:
                if error is not None:
                    raise error


async def _relist(reconciler: Reconciler, watches: Watches, queue: WorkQueue) -> None:
    keys: set[Key] = await reconciler.relist()
    watches.hear()
    for key in keys:
        queue.add(key)


async def _relist_for_ever(
    reconciler: Reconciler, watches: Watches, queue: WorkQueue, seconds: float
) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await _relist(reconciler, watches, queue)
        except ApiError as error:
            logger.warning("relist failed: %s", error)


class _JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_as_json(level: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
