"""`trainwright-trainer run`: carries a plan out as a program, on a terminal, on a server or in a pod."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from trainwright.cli.output import print_error
from trainwright.contract import Adjustments, Outcome, Progress, RunPlan, RunReport, Stage, StageGroup
from trainwright.errors import ConfigurationError, StepError
from trainwright_trainer import annotation_commands
from trainwright_trainer.devices import count_gpus
from trainwright_trainer.failures import describe_failure
from trainwright_trainer.logs import set_up_logging
from trainwright_trainer.observers import LogObserver, Moment, Observer, Observers, TerminalObserver
from trainwright_trainer.pipeline import execute
from trainwright_trainer.places import Places
from trainwright_trainer.reporting import ApiServer, StatusReporter, TerminationMessage, read_reported
from trainwright_trainer.standalone.config import render_config, write_config
from trainwright_trainer.standalone.dated import begin_run
from trainwright_trainer.standalone.variables import read_settings
from trainwright_trainer.stopping import LastReport, StopRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
config = typer.Typer(no_args_is_help=True, help="The settings of a server without a cluster.")
app.add_typer(config, name="config")
app.add_typer(annotation_commands.commands, name="annotations")
ENV_FILE = Path(".env")
_LOG = logging.getLogger("trainwright_trainer")
_FAREWELL_SECONDS = 4.0  # for the last report of an execution that could not be asked to end


@app.callback()
def describe() -> None:
    """Train a YOLO model from annotations, and publish it sealed."""


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter per option
    plan: Annotated[Path | None, typer.Option(help="The plan, a JSON file.")] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="The only folder written to; a retry needs the same one.")
    ] = None,
    from_env: Annotated[
        bool,
        typer.Option("--from-env", help="Variables of .env.example, in place of plan, workspace and data."),
    ] = False,
    env_file: Annotated[Path, typer.Option(help="With --from-env: the file of variables.")] = ENV_FILE,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="With --from-env: 0 is the CPU; else 1 where there is one.")
    ] = None,
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
    bundle_recipients: Annotated[
        Path | None, typer.Option(help="Public keys of those who may train the model further.")
    ] = None,
    bundle_key: Annotated[
        Path | None, typer.Option(help="bundle.key, which opens the training bundle of a parent.")
    ] = None,
    publishers: Annotated[
        Path | None, typer.Option(help="Verify keys of those who may have signed a parent.")
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Checkpoints; a folder store is below it, and written to.")
    ] = None,
    checkpoint_credentials: Annotated[
        Path | None, typer.Option(help="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY of the checkpoint store.")
    ] = None,
    stream_credentials: Annotated[
        Path | None, typer.Option(help="RABBITMQ_USER, RABBITMQ_PASSWORD of the annotation stream.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="What was read of annotations, for runs that share it; written to.")
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
    only_with_a_plan = {
        "--plan": plan, "--workspace": workspace, "--data": data, "--api-credentials": api_credentials,
        "--checkpoints": checkpoints, "--stages": stages, "--service-account": service_account,
    }  # fmt: skip
    _check_options(only_with_a_plan, from_env=from_env)
    places = Places(
        workspace or Path(),
        data,
        weights,
        api_credentials,
        cdn_credentials,
        recipients,
        signing_key,
        bundle_recipients,
        bundle_key,
        publishers,
        checkpoints,
        checkpoint_credentials,
        stream_credentials,
        cache,
    )
    last_word = [] if termination_message is None else [TerminationMessage(termination_message)]
    with ExitStack() as stack:
        newest, reporter, reported, dated = LastReport(), None, None, None
        observers: list[Observer] = [*last_word]
        stop = stack.enter_context(StopRequest(grace_seconds, lambda: _end_at_once(newest, observers))).stop
        try:
            if plan is None:
                settings, today = read_settings(env_file, os.environ), datetime.now().astimezone().date()
                used = count_gpus() if gpus is None else gpus
                dated = stack.enter_context(begin_run(settings, places, gpus=used, today=today))
                loaded, places = dated.plan, dated.places
            else:
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
            result = execute(
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
            if dated is not None:
                _LOG.info("%s is done: %s", dated.name, dated.keep(result))
        except StepError as error:
            _explain(error)
            raise typer.Exit(int(error.exit_code)) from error


@config.command()
def render(
    env_file: Annotated[Path, typer.Option(help="The file of variables; the environment wins.")] = ENV_FILE,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("config.yaml"),
) -> None:
    """Write config.yaml from the variables of .env.example, or say all that is missing."""
    try:
        write_config(render_config(read_settings(env_file, os.environ)), output)
    except StepError as error:
        print_error(error)
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


def _check_options(only_with_a_plan: Mapping[str, object], *, from_env: bool) -> None:
    """A plan or the variables, and never some of both: in a Job only the plan counts."""
    needed = ("--plan", "--workspace")
    if from_env:
        given = [option for option, value in only_with_a_plan.items() if value is not None]
        if given:
            raise typer.BadParameter(f"--from-env takes no {', '.join(given)}: the variables say it")
    elif missing := [option for option in needed if only_with_a_plan[option] is None]:
        raise typer.BadParameter(f"{' and '.join(missing)} missing; or use --from-env, without a cluster")


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
