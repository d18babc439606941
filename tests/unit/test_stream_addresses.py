"""What goes wrong on the way to a stream is told as what it means for whoever set the address."""

from __future__ import annotations

import asyncio

import pytest
from rstream import exceptions
from rstream.client import BrokerResolutionMaxRetryError

from trainwright.errors import NetworkError
from trainwright_trainer.ingestion.address import StreamAddress, explain

ADDRESS = StreamAddress("broker.test", 5552, "parts", "reader", "not-this-one")


@pytest.mark.parametrize(
    "error",
    [
        exceptions.LeaderNotAvailable("Leader not yet elected for stream parts"),
        exceptions.StreamNotAvailable(),
        BrokerResolutionMaxRetryError("Failed to connect"),
        KeyError(7),
        IndexError("list index out of range"),
        AssertionError(),
    ],
    ids=repr,
)
def test_what_a_broker_can_not_tell_now_is_asked_for_again(error: Exception) -> None:
    told = explain(error, ADDRESS)
    assert isinstance(told, NetworkError)
    assert "the stream 'parts' of RabbitMQ at broker.test:5552" in str(told)
    assert told.hint
    assert "not-this-one" not in f"{told} {told.hint}"


@pytest.mark.parametrize("error", [TypeError("wrong"), asyncio.CancelledError()], ids=repr)
def test_what_nobody_who_set_the_address_can_mend_is_not_explained(error: BaseException) -> None:
    assert explain(error, ADDRESS) is None
