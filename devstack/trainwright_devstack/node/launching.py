"""From a container's specification to a process: variables, words, working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainwright_devstack.node.container import Container
from trainwright_devstack.node.environment import base_environment, command_line, container_environment
from trainwright_devstack.node.paths import PathMap
from trainwright_devstack.node.volumes import Volumes

Object = dict[str, Any]

TERMINATION_MESSAGE = "/dev/termination-log"


def launch(pod: Object, container: Container, volumes: Volumes, home: Path, server: str) -> None:
    """Start the container; raise MissingReference while something its variables name does not exist."""
    spec = container.spec
    home.mkdir(parents=True, exist_ok=True)
    base = base_environment(pod, home, server)
    environment = container_environment(pod, spec, base, volumes.texts)
    message_path = spec.get("terminationMessagePath") or TERMINATION_MESSAGE
    message_file = container.message_file(container.run + 1)
    paths = PathMap({**volumes.places(spec).places, message_path: message_file})
    # Only what the pod says is rewritten: our own folders may lie below a path that it mounts, as /tmp.
    rewritten = {
        name: value if base.get(name) == value else paths.rewrite(value)
        for name, value in environment.items()
    }
    wanted = spec.get("workingDir")
    directory = Path(paths.rewrite(wanted)) if wanted else home
    container.start(command_line(spec, environment, paths), rewritten, directory)
