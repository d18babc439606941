"""Container paths and where they lie on this machine.

There is no mount namespace: a pod sees its volumes because every word of its command line and every value
of its environment that is, or begins with, a mount path is rewritten. A path inside a longer text is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PathMap:
    """Mount paths of one container and their local places."""

    places: Mapping[str, Path]

    def rewrite(self, text: str) -> str:
        """Return the text with its leading mount path replaced; the longest one that fits wins."""
        for mount in sorted(self.places, key=len, reverse=True):
            if text == mount:
                return str(self.places[mount])
            if text.startswith(mount.rstrip("/") + "/"):
                return str(self.places[mount]) + text[len(mount.rstrip("/")) :]
        return text
