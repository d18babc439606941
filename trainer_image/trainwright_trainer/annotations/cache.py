"""What a build keeps for the next one: readings, altered copies, and the images of both by their digests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from trainwright_trainer.annotations.readings import ObjectStore


@dataclass(frozen=True)
class DatasetCache:
    """Where readings and images are kept: in the workspace, or in a folder that several runs share."""

    workspace: Path
    shared: Path | None

    @property
    def store(self) -> ObjectStore:
        """Return the images."""
        return ObjectStore((self.shared or self.workspace) / "objects")

    @property
    def ledger(self) -> Path:
        """Return the path of this run's own ledger, which begins as a copy of the shared one."""
        return self._own("ledger.sqlite")

    @property
    def copies(self) -> Path:
        """Return the path of this run's own database of altered copies."""
        return self._own("copies.sqlite")

    def _own(self, name: str) -> Path:
        path = self.workspace / name
        if self.shared is not None and not path.exists() and (self.shared / name).exists():
            self.workspace.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.shared / name, path)
        return path

    def share(self) -> None:
        """Let other runs have what this one knows; the last one to say so is believed."""
        if self.shared is not None:
            for path in (self.ledger, self.copies):
                partial = self.shared / f".{path.stem}.{uuid4().hex}"
                shutil.copyfile(path, partial)
                partial.replace(self.shared / path.name)

    def prune(self) -> None:
        """Remove images that no dataset has; of those in a shared folder nobody can say that."""
        if self.shared is None:
            for path in self.store.folder.glob("*/*"):
                if path.stat().st_nlink == 1:
                    path.unlink()
