"""Keys and accounts for runs: the trainer gets what publishing needs, the reader what reading needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.cli.keys import Kind, write_pair
from trainwright_devstack.api import Api, namespaced
from trainwright_devstack.kubeconfig import write_private
from trainwright_devstack.state import AccountState, StackState

Object = dict[str, Any]

RECIPIENT, PUBLISHER = "demo-reader", "demo-publisher"


@dataclass(frozen=True)
class ReaderFiles:
    """What the reader of models holds, as files readable by their owner only."""

    private_key: Path
    publisher: Path
    api_credentials: Path
    cdn_credentials: Path


def write_keys(folder: Path) -> None:
    """Make the reader's and the publisher's keys; the reader's private key never enters the cluster."""
    for kind, name in ((Kind.RECIPIENT, RECIPIENT), (Kind.PUBLISHER, PUBLISHER)):
        for suffix in ("private", "public"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        write_pair(kind, name, folder)


def write_reader_files(folder: Path, state: StackState) -> ReaderFiles:
    """Write the reader's account and download keys."""
    authority = state.authority.read_text()
    account, cdn = folder / "reader-account", folder / "reader-cdn"
    for name, text in _account(state.resource_api.reader, authority).items():
        write_private(account / name, text)
    write_private(cdn / "cdn.yaml", state.s3.downloader_cdn_yaml)
    write_private(cdn / "ca.crt", authority)
    return ReaderFiles(folder / f"{RECIPIENT}.private", folder / f"{PUBLISHER}.public", account, cdn)


def hand_out(api: Api, namespace: str, folder: Path, state: StackState) -> None:
    """Make the namespace and what its runs may use, anew."""
    if api.find(f"/api/v1/namespaces/{namespace}") is None:
        api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    authority = state.authority.read_text()
    cdn = {"cdn.yaml": state.s3.uploader_cdn_yaml, "ca.crt": authority}
    signing = {"publisher.key": (folder / f"{PUBLISHER}.private").read_text()}
    for name, data in (
        ("publisher-account", _account(state.resource_api.publisher, authority)),
        ("publisher-cdn", cdn),
        ("publisher-key", signing),
    ):
        replace_object(api, namespace, "secrets", usable(name, "delivery") | {"stringData": data})
    public = {RECIPIENT: (folder / f"{RECIPIENT}.public").read_text()}
    replace_object(api, namespace, "configmaps", usable("recipients", "recipients") | {"data": public})


def _account(account: AccountState, authority: str) -> dict[str, str]:
    return {
        "AZAION_API_EMAIL": account.email,
        "AZAION_API_PASSWORD": account.password,
        "ca.crt": authority,
    }


def usable(name: str, use: str) -> Object:
    """Return the head of an object that runs may use."""
    return {"metadata": {"name": name, "labels": {"trainwright.dev/use": use}}}


def replace_object(api: Api, namespace: str, plural: str, body: Object) -> None:
    """Make an object, in place of the one of that name."""
    path = namespaced(namespace, plural, body["metadata"]["name"])
    if api.find(path) is not None:
        api.delete(path)
    api.create(namespaced(namespace, plural), body)
