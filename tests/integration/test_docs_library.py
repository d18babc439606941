"""The README's Python is run as it stands, but for its size: a real training on a folder of images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from annotation_trees import digest_tree, write_tree
from documents import ROOT, read_blocks

SMALLER = {'"epochs": 40': '"epochs": 1', '"imageSize": 320': '"imageSize": 64'}


def test_the_readmes_ten_lines_train_on_a_folder(tmp_path: Path) -> None:
    (block,) = read_blocks("python", documents=[ROOT / "README.md"])
    program = block.text
    assert len([line for line in program.splitlines() if line]) <= 10
    for line, smaller in SMALLER.items():
        assert program.count(line) == 1
        program = program.replace(line, smaller)
    annotations = write_tree(tmp_path / "annotations", 12)
    before = digest_tree(annotations)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mAP50to95" in done.stdout
    assert (tmp_path / done.stdout.split()[-1]).is_file()
    assert digest_tree(annotations) == before
