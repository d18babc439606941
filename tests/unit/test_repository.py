"""Guards of the repository itself: what no other test would notice until it hurts."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from prerequisites import require, require_program

ROOT = Path(__file__).parents[2]
PACKAGE_FOLDERS = ("operator", "trainer_image", "resource_api", "devstack")
LONGEST_MODULE = 350

# Folders at the root of somebody's machine; the images and pods of ours have none of them.
MACHINE_FOLDERS = ("work", "farm", "root", "home", "Users")
MACHINE_PATH = re.compile(rf"(?<![\w.:}}/-])/(?:{'|'.join(MACHINE_FOLDERS)})(?![\w-])")


def list_files() -> list[Path]:
    """Return the files of the repository: tracked, or new and not ignored."""
    command = ["-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run([require_program("git"), *command], capture_output=True, check=False)
    require(done.returncode == 0, f"needs a checkout: {done.stderr.decode()}")
    names = done.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def read_text(path: Path) -> str:
    """Return a text file's content, or nothing for a binary one."""
    content = path.read_bytes()
    return "" if b"\0" in content[:8192] else content.decode("utf-8", "replace")


def test_the_operator_s_folder_is_no_package() -> None:
    assert (ROOT / "operator" / "trainwright_operator" / "__init__.py").is_file()
    assert not (ROOT / "operator" / "__init__.py").exists(), "it would shadow the standard library's operator"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in list_files()
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("folder", MACHINE_FOLDERS)
def test_machine_paths_are_told_from_others(folder: str) -> None:
    for line in ("cd /{}/project", 'data = "/{}/somebody/data"', "see /{}", "rm -r /{};"):
        assert MACHINE_PATH.search(line.format(folder)), line
    for line in (
        "https://example.com/{}/",
        "../shared/{}/",
        "mountPath: /{}space",
        "build/{}",
        "${{HOME}}/{}",
    ):
        assert not MACHINE_PATH.search(line.format(folder)), line


def test_modules_fit_into_one_reading() -> None:
    modules = [path for folder in PACKAGE_FOLDERS for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert len(lengths) > 20
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_each_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    lines = text.splitlines()
    for requirement in requirements:
        if requirement.startswith("trainwright["):
            continue
        line = next(line for line in lines if f'"{requirement}"' in line)
        assert re.search(r"# \S.{8,}", line), f"{requirement} has no comment on its line"


def test_every_package_is_typed_shipped_and_has_a_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    shipped = {Path(package).name for package in packages}
    inits = [path for folder in PACKAGE_FOLDERS for path in (ROOT / folder).glob("*/__init__.py")]
    present = {path.parent.name for path in inits}
    commanded = {target.split(":")[0].split(".")[0] for target in project["project"]["scripts"].values()}
    assert shipped == present == commanded
    assert {name for name in present if not list(ROOT.glob(f"*/{name}/py.typed"))} == set()


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports them by name"
