"""What a refused caller is told: a sentence that says what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError


class ProblemError(Exception):
    """A request is refused: the status, what is wrong, and a hint; answered as JSON."""

    def __init__(
        self, status: HTTPStatus, error: str, hint: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.hint = hint
        self.headers = dict(headers or {})

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": self.error, "hint": self.hint}


def bad_request(error: str, hint: str) -> ProblemError:
    """Return the refusal of a request that no repetition makes right."""
    return ProblemError(HTTPStatus.BAD_REQUEST, error, hint)


def describe_validation(problem: ValidationError) -> str:
    """Return all that is wrong in one line, without the values: one of them may be a password."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}"
        for item in problem.errors(include_input=False, include_url=False, include_context=False)
    )
