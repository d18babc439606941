"""The S3 server of the stack: one that checks credentials where there is a binary, else a stand-in."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
import yaml
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from trainwright_devstack.binaries import cached_folder
from trainwright_devstack.certificates import Authority
from trainwright_devstack.processes import Process, ProcessError, free_port

REGION = "us-east-1"
BUCKET = "models"
READY_SECONDS = 30.0
UPLOADER_ACTIONS = [
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
]


@dataclass(frozen=True)
class AccessPair:
    """The key pair of one user."""

    key: str
    secret: str = field(repr=False)

    @classmethod
    def make(cls, name: str) -> AccessPair:
        """Return a pair nobody has guessed."""
        return cls(f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(24))


class ObjectStore:
    """An S3 server over TLS with one bucket; `uploader` may write to it, `downloader` may read it."""

    def __init__(self, folder: Path, authority: Authority, host: str = "127.0.0.1") -> None:
        self.folder = folder.resolve()
        self.uploader, self.downloader = AccessPair.make("uploader"), AccessPair.make("downloader")
        self.program = find_versitygw()
        self._authority, self._host, self._port = authority, host, free_port()
        self._root = AccessPair.make("root")
        self._process = Process(self.folder / "process")

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"https://{self._host}:{self._port}"

    @property
    def checks_credentials(self) -> bool:
        """Whether a wrong key pair is refused."""
        return self.program is not None

    def start(self) -> None:
        """Start the server, and return when the bucket and its rights are in place."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.program:
            self._start_versitygw(self.program)
            for pair in (self.uploader, self.downloader):
                self._add_user(pair)
            self._client().create_bucket(Bucket=BUCKET)
            self._client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(self._policy()))
        else:
            self._start_moto()
            self._client().create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        """End the server."""
        self._process.stop()

    def cdn_yaml(self, *roles: str) -> str:
        """Return the text of a `cdn.yaml` with the pairs of these roles: uploader, downloader."""
        content = {"host": self.url, "bucket": BUCKET, "region": REGION}
        for role in roles:
            pair = {"uploader": self.uploader, "downloader": self.downloader}[role]
            content |= {f"{role}_access_key": pair.key, f"{role}_access_secret": pair.secret}
        return yaml.safe_dump(content, sort_keys=False)

    def _start_versitygw(self, program: str) -> None:
        data, users = self.folder / "data", self.folder / "users"
        data.mkdir(exist_ok=True)
        users.mkdir(exist_ok=True, mode=0o700)
        pair = self._authority.issue("s3", common_name="s3", hosts=[self._host, "127.0.0.1", "localhost"])
        sidecar = self.folder / "metadata"
        sidecar.mkdir(exist_ok=True)
        # Not every file system has extended attributes, where it keeps metadata by default.
        metadata = [] if _has_attributes(data) else ["--sidecar", str(sidecar)]
        # Secrets by environment: a command line can be read by everybody.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "ROOT_ACCESS_KEY": self._root.key,
            "ROOT_SECRET_KEY": self._root.secret,
        }
        listen = ["--port", f"{self._host}:{self._port}", "--region", REGION]
        tls = ["--cert", str(pair.certificate), "--key", str(pair.key)]
        command = [program, "--quiet", *listen, *tls, "--iam-dir", str(users), "posix", *metadata, str(data)]
        self._process.start(command, environment=environment, directory=self.folder)
        self._wait()

    def _start_moto(self) -> None:
        pair = self._authority.issue("s3", common_name="s3", hosts=[self._host, "127.0.0.1", "localhost"])
        program = str(Path(sys.executable).with_name("moto_server"))
        listen = ["-H", self._host, "-p", str(self._port)]
        tls = ["-s", "-c", str(pair.certificate), "-k", str(pair.key)]
        self._process.start([program, *listen, *tls], directory=self.folder)
        self._wait()

    def _wait(self) -> None:
        wait_for_port(self._process, "the S3 server", self._host, self._port)

    def _add_user(self, pair: AccessPair) -> None:
        account = f"<Access>{pair.key}</Access><Secret>{pair.secret}</Secret><Role>user</Role>"
        body = f"<Account>{account}</Account>".encode()
        request = AWSRequest(method="PATCH", url=f"{self.url}/create-user", data=body)
        request.headers["X-Amz-Content-Sha256"] = hashlib.sha256(body).hexdigest()
        SigV4Auth(Credentials(self._root.key, self._root.secret), "s3", REGION).add_auth(request)
        answer = requests.patch(
            f"{self.url}/create-user",
            data=body,
            headers=dict(request.headers),
            verify=str(self._authority.certificate),
            timeout=10,
        )
        if not answer.ok:
            raise ProcessError(f"the S3 server made no user: {answer.status_code}; see {self._process.log}")

    def _policy(self) -> dict[str, Any]:
        bucket = f"arn:aws:s3:::{BUCKET}"

        def allow(pair: AccessPair, actions: list[str], resource: str) -> dict[str, Any]:
            return {
                "Effect": "Allow",
                "Principal": {"AWS": [pair.key]},
                "Action": actions,
                "Resource": resource,
            }

        return {
            "Version": "2012-10-17",
            "Statement": [
                allow(self.uploader, UPLOADER_ACTIONS, f"{bucket}/*"),
                # Without these an uploader can't find what a crash left behind.
                allow(self.uploader, ["s3:ListBucket", "s3:ListBucketMultipartUploads"], bucket),
                allow(self.downloader, ["s3:GetObject"], f"{bucket}/*"),
            ],
        }

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self._root.key,
            aws_secret_access_key=self._root.secret,
            verify=str(self._authority.certificate),
            config=Config(s3={"addressing_style": "path"}),
        )


def find_versitygw() -> str | None:
    """Return versitygw from KUBEBUILDER_ASSETS, the cache or the search path, if it is anywhere."""
    folders = [os.environ.get("KUBEBUILDER_ASSETS", ""), str(cached_folder())]
    return shutil.which("versitygw", path=os.pathsep.join(filter(None, folders))) or shutil.which("versitygw")


def wait_for_port(process: Process, name: str, host: str, port: int) -> None:
    """Wait until a server of ours takes connections."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        process.require_alive(name)
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise ProcessError(f"{name} was not ready in time; see {process.log}") from None
            time.sleep(0.05)


def _has_attributes(folder: Path) -> bool:
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(folder, "user.trainwright", b"1")
    except OSError:
        return False
    return True
