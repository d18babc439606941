"""Notifications, sent by the process of their own to real servers, and what that process refuses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import write_certificate
from receivers import Hook, https_hook

from trainwright_operator.couriers import Couriers

Object = dict[str, Any]
LETTER: Object = {
    "id": "4f2a-Failed-1",
    "title": "Training ml/parts-1: Failed",
    "text": "no images",
    "facts": {"run": "parts-1", "phase": "Failed"},
}
LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A server whose certificate is trusted."""
    certificate, key = write_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with https_hook(certificate, key) as hook:
        yield hook


def deliver(
    *urls: str,
    allowed: tuple[str, ...] = LOOPBACK,
    refused: tuple[str, ...] = (),
    hosts: tuple[str, ...] | None = None,
) -> list[str]:
    """Return what went wrong with each address."""

    async def send() -> list[str]:
        couriers = Couriers(allowed, refused)
        try:
            return [await couriers.send(LETTER | {"url": url, "hosts": hosts}) for url in urls]
        finally:
            await couriers.end()

    return asyncio.run(send())


def test_a_hook_gets_the_facts_and_a_key_to_know_them_again_by(hook: Hook) -> None:
    assert deliver(hook.url, hook.url) == ["", ""]
    assert hook.keys == ["4f2a-Failed-1"] * 2
    assert hook.got[0].items() >= {"run": "parts-1", "phase": "Failed", "id": "4f2a-Failed-1"}.items()


def test_apprise_reaches_services_by_its_own_spelling(hook: Hook) -> None:
    assert deliver(hook.url.replace("https://", "jsons://")) == [""]
    assert (hook.got[0]["title"], hook.got[0]["type"]) == ("Training ml/parts-1: Failed", "failure")


def test_an_answer_that_is_an_error_is_told_by_its_number_alone(hook: Hook) -> None:
    hook.answers = [503, 403]
    assert deliver(hook.url, hook.url.replace("https://", "jsons://")) == [
        "the server answered 503",
        "the service answered 403",
    ]


@pytest.mark.parametrize("schema", ["https://", "jsons://"])
def test_a_redirect_is_not_followed(hook: Hook, schema: str) -> None:
    hook.answers, hook.redirect = [307], hook.url
    assert deliver(hook.url.replace("https://", schema)) != [""]
    assert hook.got == []


def test_private_addresses_are_refused_by_any_name_and_spelling(hook: Hook) -> None:
    port = hook.url.split(":")[2].split("/")[0]
    addresses = [
        hook.url,
        f"https://localhost:{port}/",
        f"https://[::ffff:127.0.0.1]:{port}/",
        f"https://[64:ff9b::7f00:1]:{port}/",
        f"https://2130706433:{port}/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://[fd00::1]/",
        f"jsons://localhost:{port}/",
        f"mailto://user:secret@localhost:{port}?to=somebody@example.org&from=us@example.org",
    ]
    for address, problem in zip(addresses, deliver(*addresses, allowed=()), strict=True):
        assert "private or local network" in problem, (address, problem)
    assert hook.got == []


def test_a_network_that_is_refused_is_so_though_it_is_allowed_or_public(hook: Hook) -> None:
    addresses = (hook.url, "https://203.0.113.9/")
    refused = ("127.0.0.1/32", "203.0.113.0/24")
    assert all("private or local" in problem for problem in deliver(*addresses, refused=refused))


SELF_HOSTED = (
    "jsons",
    "ntfys",
    "gotifys",
    "mmosts",
    "rockets",
    "apprises",
    "matrixs",
    "workflows",
    "hassios",
)


def test_a_service_is_reached_on_no_host_that_the_profile_does_not_allow(hook: Hook) -> None:
    port = hook.url.split(":")[2].split("/")[0]
    path = "/".join(["a" * 64] * 2)
    addresses = [
        hook.url,
        hook.url.replace("https", "HTTPS"),
        f"https://127.0.0.1:{port}\\@example.org/x",
        f"https://127.0.0.1:{port}\\.example.org/x",
        *(f"{schema}://user:pass@127.0.0.1:{port}/{path}" for schema in SELF_HOSTED),
        "ntfys://a-topic",
    ]
    for address, problem in zip(addresses, deliver(*addresses, hosts=("example.org",)), strict=True):
        assert "limits.endpoints" in problem, (address, problem)
    assert hook.got == []


def test_a_service_is_reached_on_a_host_that_the_profile_allows(hook: Hook) -> None:
    port = hook.url.split(":")[2].split("/")[0]
    addresses = hook.url, hook.url.replace("https://", "jsons://")
    assert deliver(*addresses, hosts=(f"127.0.0.1:{port}",)) == ["", ""]
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
    assert "limits.endpoints" not in deliver(slack, hosts=())[0]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x", "json://127.0.0.1/x", "syslog://", "file:///etc/passwd", "not an address", ""],
)
def test_what_is_neither_https_nor_mail_is_refused(url: str) -> None:
    (problem,) = deliver(url)
    assert "address" in problem


def test_a_file_that_an_address_names_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a token of ours")
    slack = f"slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?template={file}"
    assert deliver(slack) == ["the address names a file"]


def test_no_problem_tells_the_address(hook: Hook) -> None:
    hook.answers = [500]
    closed = "https://127.0.0.1:9/hook-of-the-secret-kind"
    for problem in deliver(hook.url, closed, "https://no-such.invalid/hook-of-the-secret-kind"):
        assert problem
        assert not {"secret-kind", "127.0.0.1", "no-such"} & set(problem.replace("/", " ").split())


def test_a_server_without_a_trusted_certificate_gets_nothing(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().openssl_cafile)
    assert "certificate" in deliver(hook.url)[0]
    assert hook.got == []


def test_mail_arrives_through_a_mail_server() -> None:
    from aiosmtpd.controller import Controller

    class Inbox:
        mails: list[bytes] = []  # noqa: RUF012  (one server, one test)

        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
            self.mails.append(envelope.content)
            return "250 OK"

    from trainwright_devstack.processes import free_port

    inbox = Inbox()
    controller = Controller(inbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        address = (
            f"mailto://127.0.0.1:{controller.port}?from=us@example.org&to=them@example.org&mode=insecure"
        )
        assert deliver(address) == [""]
    finally:
        controller.stop()
    (mail,) = inbox.mails
    assert b"Training ml/parts-1: Failed" in mail
    assert b"no images" in mail
