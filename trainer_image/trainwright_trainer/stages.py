"""What a stage of an execution is to the pipeline, whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from trainwright.contract import Contract, Stage

_Output = TypeVar("_Output", bound=Contract)


@dataclass(frozen=True)
class Step(Generic[_Output]):
    """A stage of this execution: what from, how, which files it leaves, what it adds to the report."""

    stage: Stage
    output: type[_Output]
    inputs: tuple[str, ...]
    make: Callable[[], _Output]
    files: Callable[[_Output], tuple[str, ...]] = lambda output: ()
    found: Callable[[_Output], dict[str, object]] = lambda output: {}
    is_whole: Callable[[_Output], bool] = lambda output: True
