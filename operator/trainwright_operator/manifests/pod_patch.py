"""A profile's patch of the trainer's pod: JSON merge patch, but lists of named things by name. Pure."""

from __future__ import annotations

import copy
from typing import Any

from trainwright_operator.manifests.guarantees import find_broken

Object = dict[str, Any]

LIST_KEYS = ("mountPath", "name")
"""What tells the members of a list apart, if all of them have it; lists of anything else are replaced."""


class PatchRefusedError(Exception):
    """A patch would take away what is guaranteed of a trainer's pod; `problems` names each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def patch_pod(template: Object, patch: Object) -> Object:
    """Return a pod's template with a patch applied; one that breaks a guarantee is refused as a whole."""
    if not patch:
        return template
    patched: Object = _merge(copy.deepcopy(template), patch)
    problems = find_broken(template, patched)
    if problems:
        raise PatchRefusedError(problems)
    return patched


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7386, but for lists of named members: null removes, objects are merged, all else is replaced."""
    if isinstance(patch, list):
        return _merge_list(target, patch)
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _merge_list(target: Any, patch: list[Any]) -> list[Any]:
    key = _key_of(patch)
    if key is None or not isinstance(target, list) or _key_of(target) is None:
        return patch
    merged = {item[key]: item for item in target if key in item}
    for item in patch:
        merged[item[key]] = _merge(merged.get(item[key]), item)
    return list(merged.values())


def _key_of(items: list[Any]) -> str | None:
    for key in LIST_KEYS:
        if items and all(isinstance(item, dict) and key in item for item in items):
            return key
    return None
