"""What the process that sends notifications takes for public, and for secure."""

from __future__ import annotations

import apprise
import pytest

from trainwright_operator.messenger import NOT_SECURE, Guard, send


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("64:ff9b::101:101", True),
        ("10.0.0.1", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("::ffff:168.63.129.16", False),
        ("4000::1", False),
        ("64:ff9b:1::101:101", False),
        ("::1.1.1.1", False),
        ("fec0::1", False),
        ("fd00::1", False),
    ],
)
def test_only_what_the_internet_routes_is_public_but_for_what_is_allowed(address: str, public: bool) -> None:
    assert Guard((), ()).is_allowed(address) is public
    assert Guard(("0.0.0.0/0", "::/0"), ()).is_allowed(address)


@pytest.mark.parametrize(
    "url", ["dapnet://user:pass@DF1ABC", "kavenegar://abcdefghijklmnopq/15551234567", "json://example.org"]
)
def test_a_service_that_is_spoken_to_in_the_clear_is_refused_whatever_its_schema_says(url: str) -> None:
    assert apprise.Apprise.instantiate(url) is not None
    letter = {"url": url, "title": "t", "text": "t", "facts": {"phase": "Failed"}}
    assert send(letter, Guard((), ())) == NOT_SECURE
