"""The story of the demo, from the stack to the verdict."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from trainwright.contract import Stage
from trainwright.delivery import ApiCredentials, CdnCredentials, Fetched, Keys, ResourceApi, Source, fetch
from trainwright.sealing import PrivateKey, VerifyKey
from trainwright_devstack.api import APPLY_PATCH, Api
from trainwright_devstack.demo.detections import draw_detections
from trainwright_devstack.demo.secrets import ReaderFiles, hand_out, write_keys, write_reader_files
from trainwright_devstack.demo.table import format_table
from trainwright_devstack.demo.view import open_view
from trainwright_devstack.state import StackState

Object = dict[str, Any]

RUNS = "/apis/trainwright.dev/v1alpha1/namespaces/{namespace}/trainingruns"
RUN_SECONDS = 900.0
LEAST_MAP50, LEAST_TEST_IMAGES = 0.70, 60
HELD_OUT = 1_000_003  # added to the seed: images no run of the demo trains on


class DemoError(RuntimeError):
    """The demo did not reach what it promises; the message lists everything it missed."""


@dataclass(frozen=True)
class Demo:
    """One demonstration on a stack that is up; everything it makes is below `folder`."""

    state: StackState
    folder: Path
    console: Console
    seed: int = 0

    def play(self) -> Object:
        """Train, publish, fetch and open a model; return the result, or raise `DemoError`."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with Api(self.state.cluster.kubeconfig) as api:
            run = self._apply(api)
            status = self._watch(api, run)
            self._print_table(api, run)
        if status.get("phase") != "Succeeded":
            raise DemoError(_explain(status))
        fetched = self._fetch(run)
        result = self._write_result(status, fetched)
        self._draw(run, fetched)
        problems = find_misses(result, status)
        if problems:
            raise DemoError("; ".join(problems))
        return result

    def _apply(self, api: Api) -> Object:
        """Hand out keys and accounts, and apply the run, in place of one of an earlier demo."""
        text = (resources.files(__package__) / "trainingrun.yaml").read_text()
        run: Object = yaml.safe_load(text)
        run["spec"]["delivery"]["api"]["url"] = self.state.resource_api.url
        run["spec"]["training"]["seed"] = self.seed
        run["spec"]["dataset"]["source"]["sample"]["seed"] = self.seed
        write_keys(self.folder)
        hand_out(api, run["metadata"]["namespace"], self.folder, self.state)
        (self.folder / "trainingrun.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
        self._delete(api, run)
        api.patch(_path(run), run, APPLY_PATCH, fieldManager="trainwright-demo", fieldValidation="Strict")
        self.console.print(f"applied {self.folder / 'trainingrun.yaml'}", highlight=False, soft_wrap=True)
        return run

    def _delete(self, api: Api, run: Object) -> None:
        if api.find(_path(run)) is None:
            return
        api.delete(_path(run))
        claim = f"/api/v1/namespaces/{run['metadata']['namespace']}/persistentvolumeclaims/shapes-workspace"
        while api.find(claim) is not None:
            time.sleep(0.5)

    def _watch(self, api: Api, run: Object) -> Object:
        deadline = time.monotonic() + RUN_SECONDS
        with open_view(self.console) as view:
            while True:
                status: Object = api.get(_path(run)).get("status", {})
                view.show(status)
                if status.get("phase") in ("Succeeded", "Failed", "Cancelled"):
                    return status
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"the run did not end in {RUN_SECONDS:.0f} s; it is {status.get('phase')}"
                    )
                time.sleep(0.5)

    def _print_table(self, api: Api, run: Object) -> None:
        name, namespace = run["metadata"]["name"], run["metadata"]["namespace"]
        self.console.print(f"\n$ kubectl get trun {name} -n {namespace}", highlight=False, soft_wrap=True)
        self.console.print(format_table(api.get_table(_path(run))) + "\n", highlight=False, soft_wrap=True)

    def _fetch(self, run: Object) -> Fetched:
        """Fetch and open the model as its reader: with the reader's account, keys, and private key."""
        files = write_reader_files(self.folder, self.state)
        model, to = run["spec"]["model"]["name"], self.folder / "opened"
        self.console.print(
            f"$ {_fetch_command(model, to, self.state, files)}", highlight=False, soft_wrap=True
        )
        source = Source(
            ResourceApi(self.state.resource_api.url, ApiCredentials.from_folder(files.api_credentials)),
            "models",
            CdnCredentials.from_folder(files.cdn_credentials, "downloader"),
        )
        keys = Keys(PrivateKey.from_file(files.private_key), [VerifyKey.from_file(files.publisher)])
        fetched = fetch(model, None, source, keys, to)
        self.console.print(
            f"opened {fetched.opened.path}, {fetched.opened.digest}", highlight=False, soft_wrap=True
        )
        return fetched

    def _write_result(self, status: Object, fetched: Fetched) -> Object:
        model = status["model"]
        result = {
            "phase": status["phase"],
            "stageSeconds": status["trainer"]["finishedStages"],
            "mAP50": status["metrics"]["mAP50"],
            "testImages": status["dataset"]["images"]["test"],
            "seed": self.seed,
            "datasetDigest": status["dataset"]["digest"],
            "modelDigest": model["digest"],
            "parts": {
                name: {"size": model["parts"][name]["size"], "digest": model["parts"][name]["digest"]}
                for name in ("small", "big")
            },
            "openedDigest": fetched.opened.digest,
            "cluster": self.state.cluster.description,
        }
        path = self.folder / "result.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        self.console.print(f"result    {path}", highlight=False, soft_wrap=True)
        return result

    def _draw(self, run: Object, fetched: Fetched) -> None:
        picture = self.folder / "detections.png"
        size = run["spec"]["training"]["imageSize"]
        boxes = draw_detections(fetched.opened.path, self.seed + HELD_OUT, size, picture)
        self.console.print(
            f"picture   {picture} ({boxes} shapes found on images it never saw)", highlight=False
        )


def find_misses(result: Object, status: Object) -> list[str]:
    """Return everything the demo promises and did not reach."""
    misses = []
    if result["mAP50"] < LEAST_MAP50:
        misses.append(f"mAP50 on the test split is {result['mAP50']:.3f}, below {LEAST_MAP50}")
    if result["testImages"] < LEAST_TEST_IMAGES:
        misses.append(f"{result['testImages']} test images, fewer than {LEAST_TEST_IMAGES}")
    if result["openedDigest"] != result["modelDigest"]:
        misses.append("the opened model is not the one that was trained")
    if set(result["stageSeconds"]) != set(Stage):
        misses.append(f"stages {sorted(set(Stage) - set(result['stageSeconds']))} were not reported")
    if status["attempt"] != 1:
        misses.append(f"it took {status['attempt']} attempts")
    return misses


def _path(run: Object) -> str:
    return RUNS.format(namespace=run["metadata"]["namespace"]) + f"/{run['metadata']['name']}"


def _explain(status: Object) -> str:
    failure = status.get("failure", {})
    message = f"the run is {status.get('phase')}: {failure.get('cause', '')}: {failure.get('message', '')}"
    hint = f" ({failure['hint']})" if failure.get("hint") else ""
    return f"{message}{hint}\n{failure.get('logTail', '')}".rstrip()


def _fetch_command(model: str, to: Path, state: StackState, files: ReaderFiles) -> str:
    options = {
        "--to": to,
        "--api-url": state.resource_api.url,
        "--api-credentials": files.api_credentials,
        "--cdn-credentials": files.cdn_credentials,
        "--private-key": files.private_key,
        "--publisher": files.publisher,
    }
    words = [f"{name} {_shorten(value)}" for name, value in options.items()]
    return " ".join(["trainwright fetch", model, *words])


def _shorten(value: object) -> str:
    """Return a path as seen from the current folder, where it is below it."""
    if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
        return str(value.relative_to(Path.cwd()))
    return str(value)
