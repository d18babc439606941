"""`trainwright-trainer run`: carries a plan out as a program, on a terminal or in a pod."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from trainwright.contract import Adjustments, Outcome, Progress, RunPlan, RunReport, Stage, StageGroup
from trainwright.errors import ConfigurationError, StepError
from trainwright_trainer.failures import describe_failure
from trainwright_trainer.logs import set_up_logging
from trainwright_trainer.observers import LogObserver, Moment, Observer, Observers, TerminalObserver
from trainwright_trainer.pipeline import execute
from trainwright_trainer.places import Places
from trainwright_trainer.reporting import ApiServer, StatusReporter, TerminationMessage, read_reported
from trainwright_trainer.stopping import LastReport, StopRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_LOG = logging.getLogger("trainwright_trainer")
_FAREWELL_SECONDS = 4.0  # for the last report of an execution that could not be asked to end


@app.callback()
def describe() -> None:
    """Train a YOLO model from annotations, and publish it sealed."""


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter per option
    plan: Annotated[Path, typer.Option(help="The plan, a JSON file.")],
    workspace: Annotated[Path, typer.Option(help="The only folder written to; a retry needs the same one.")],
    data: Annotated[Path | None, typer.Option(help="Annotations; a folder source is below it.")] = None,
    weights: Annotated[
        Path | None, typer.Option(envvar="TRAINWRIGHT_WEIGHTS", help="Base models; the image names its own.")
    ] = None,
    api_credentials: Annotated[
        Path | None, typer.Option(help="AZAION_API_EMAIL, AZAION_API_PASSWORD.")
    ] = None,
    cdn_credentials: Annotated[Path | None, typer.Option(help="cdn.yaml; else the API gives it.")] = None,
    recipients: Annotated[Path | None, typer.Option(help="Public keys of those who may open it.")] = None,
    signing_key: Annotated[Path | None, typer.Option(help="publisher.key, which signs the model.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Checkpoints; a folder store is below it, and written to.")
    ] = None,
    checkpoint_credentials: Annotated[
        Path | None, typer.Option(help="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY of the checkpoint store.")
    ] = None,
    attempt: Annotated[int, typer.Option(min=1, help="Which attempt this is.")] = 1,
    stages: Annotated[
        StageGroup | None, typer.Option(help="Only these stages; those before must be done.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in a batch, in place of the plan's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Loader processes, in place of the plan's.")
    ] = None,
    service_account: Annotated[
        Path | None, typer.Option(help="token and ca.crt: report to the run in the cluster.")
    ] = None,
    grace_seconds: Annotated[
        float, typer.Option(min=1, help="From SIGTERM to SIGKILL; the program ends before.")
    ] = 30,
    termination_message: Annotated[Path | None, typer.Option(help="Where the last report goes.")] = None,
) -> None:
    """Carry a plan out, from the first stage that is not done in the workspace."""
    set_up_logging(sys.stdout)
    places = Places(
        workspace,
        data,
        weights,
        api_credentials,
        cdn_credentials,
        recipients,
        signing_key,
        checkpoints,
        checkpoint_credentials,
    )
    last_word = [] if termination_message is None else [TerminationMessage(termination_message)]
    with ExitStack() as stack:
        newest, reporter, reported = LastReport(), None, None
        observers: list[Observer] = [*last_word]
        stop = stack.enter_context(StopRequest(grace_seconds, lambda: _end_at_once(newest, observers))).stop
        try:
            loaded = load_plan(plan)
            if service_account is not None:
                server = ApiServer.from_environment(service_account)
                if loaded.checkpoint.store is not None and not loaded.dry_run:
                    reported = read_reported(server, loaded.run, stop)
                reporter = stack.enter_context(StatusReporter(server, loaded.run, stop=stop))
                observers.append(reporter)
        except StepError as error:
            _explain(error)
            Observers(last_word).observe(_report_of_no_execution(error, attempt, stages), Moment.END)
            raise typer.Exit(int(error.exit_code)) from error
        observers += [newest, _observe_locally(stack)]
        try:
            execute(
                loaded,
                places,
                observer=Observers(observers),
                fence=None if reporter is None else reporter.fence,
                stop=stop,
                attempt=attempt,
                group=stages,
                reported=reported,
                adjustments=Adjustments(batch_size=batch_size, workers=workers),
            )
        except StepError as error:
            _explain(error)
            raise typer.Exit(int(error.exit_code)) from error


def load_plan(path: Path) -> RunPlan:
    """Return the plan in a file; raise `ConfigurationError` with every field that is wrong."""
    try:
        return RunPlan.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the plan {path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'plan'}: {each['msg']}" for each in error.errors()]
        raise ConfigurationError("the plan is not valid: " + "; ".join(problems)) from error


def main() -> None:
    """Run the command line."""
    app()


def _observe_locally(stack: ExitStack) -> Observer:
    if sys.stdout.isatty():
        return stack.enter_context(TerminalObserver())
    return LogObserver(sys.stdout)


def _end_at_once(newest: LastReport, observers: list[Observer]) -> None:
    """Say the last word of an execution that could not be asked to end."""
    report = newest.preempted()
    if report is not None:
        Observers(observers).observe(report, Moment.END)
    for observer in observers:
        if isinstance(observer, StatusReporter):
            observer.close(_FAREWELL_SECONDS)


def _explain(error: StepError) -> None:
    _LOG.error("%s%s", error, f" ({error.hint})" if error.hint else "")


def _report_of_no_execution(error: StepError, attempt: int, group: StageGroup | None) -> RunReport:
    return RunReport(
        attempt=attempt,
        group=group,
        heartbeat_time=datetime.now(UTC),
        progress=Progress(percent=0, stage=Stage.DATASET),
        outcome=Outcome.FAILED,
        failure=describe_failure(error, Stage.DATASET, ""),
    )


if __name__ == "__main__":
    main()
