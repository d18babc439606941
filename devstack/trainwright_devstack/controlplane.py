"""A control plane on this machine: etcd, API server, controller manager, scheduler."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3
from kubernetes import client

from trainwright_devstack.binaries import Binaries
from trainwright_devstack.certificates import Authority, KeyPair
from trainwright_devstack.kubeconfig import connect, write_kubeconfig
from trainwright_devstack.processes import Process, ProcessError, free_port, stop_below

LOOPBACK = "127.0.0.1"
SERVICE_RANGE = "10.96.0.0/16"
READY_SECONDS = 90.0
CONTROLLERS = "*,-node-ipam-controller"


class ControlPlane:
    """Real Kubernetes without nodes, usable as a context manager; its state dies with it.

    `kubeconfig` has the rights of system:masters. The user's own kubeconfig is not touched. `controllers` is
    the controller manager's flag of that name, `host` the address of this machine that the nodes reach.
    """

    def __init__(
        self, folder: Path, binaries: Binaries, controllers: str = CONTROLLERS, host: str = LOOPBACK
    ) -> None:
        self.folder = folder.resolve()
        self.host = host
        self.binaries = binaries
        self.controllers = controllers
        self.kubeconfig = self.folder / "kubeconfig"
        self.authority = Authority(self.folder / "pki")
        self.port = 0
        self.etcd_port = 0

    @property
    def server(self) -> str:
        """The address of the API server."""
        return f"https://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start everything on an empty state, and return when pods can be created."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        self.authority.create()
        self.port, self.etcd_port = free_port(), free_port()
        try:
            self._start_etcd()
            self._start_api_server()
            # The controllers give up when they may not yet read what the API server sets up at its start.
            self._wait_for("kube-apiserver", _api_ready)
            self._start_controllers()
            self._wait_for("kube-controller-manager", _default_account_exists)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything that runs in the folder, also what an earlier owner left behind."""
        stop_below(self.folder / "processes", grace=0.0)  # the state is thrown away: nothing to save

    def version(self) -> str:
        """Return the version the API server tells."""
        with connect(self.kubeconfig) as api:
            return str(client.VersionApi(api).get_code().git_version)

    def _start_etcd(self) -> None:
        pair = self.authority.issue("etcd", common_name="etcd", hosts=["127.0.0.1"])
        url, peer = f"https://127.0.0.1:{self.etcd_port}", f"https://127.0.0.1:{free_port()}"
        trust = self.authority.certificate
        self._run(
            "etcd",
            "--name=devstack",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=devstack={peer}",
            *_tls_flags(pair, "--cert-file", "--key-file"),
            *_tls_flags(pair, "--peer-cert-file", "--peer-key-file"),
            f"--trusted-ca-file={trust}",
            f"--peer-trusted-ca-file={trust}",
            "--client-cert-auth",
            "--peer-client-cert-auth",
            "--unsafe-no-fsync",  # a power cut may cost this state; it is thrown away at every start anyway
            "--log-level=warn",
        )

    def _start_api_server(self) -> None:
        issue = self.authority.issue
        serving = issue(
            "apiserver",
            common_name="kube-apiserver",
            hosts=[self.host, "127.0.0.1", "10.96.0.1", "localhost", "kubernetes", "kubernetes.default.svc"],
        )
        etcd = issue("apiserver-etcd", common_name="kube-apiserver")
        kubelet = issue("apiserver-kubelet", common_name="apiserver-kubelet", group="system:masters")
        tokens = self.authority.issue_token_key()
        trust = self.authority.certificate
        self._run(
            "kube-apiserver",
            f"--etcd-servers=https://127.0.0.1:{self.etcd_port}",
            f"--etcd-cafile={trust}",
            *_tls_flags(etcd, "--etcd-certfile", "--etcd-keyfile"),
            f"--bind-address={self.host}",
            f"--advertise-address={self.host}",
            # A loopback address may not be published as endpoint of the service `kubernetes`.
            f"--endpoint-reconciler-type={'none' if self.host == LOOPBACK else 'lease'}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            *_tls_flags(serving, "--tls-cert-file", "--tls-private-key-file"),
            f"--client-ca-file={trust}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={tokens.certificate}",
            f"--service-account-signing-key-file={tokens.key}",
            f"--kubelet-certificate-authority={trust}",
            *_tls_flags(kubelet, "--kubelet-client-certificate", "--kubelet-client-key"),
            "--kubelet-preferred-address-types=InternalIP",
            "--event-ttl=1h",
            "--profiling=false",
        )
        admin = issue("admin", common_name="admin", group="system:masters")
        write_kubeconfig(
            self.kubeconfig, server=self.server, authority=trust, identity=admin, user="devstack-admin"
        )

    def _start_controllers(self) -> None:
        self._start_client(
            "kube-controller-manager",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.authority.folder / 'tokens.key'}",
            f"--root-ca-file={self.authority.certificate}",
            f"--cluster-signing-cert-file={self.authority.certificate}",
            f"--cluster-signing-key-file={self.authority.key}",
            f"--controllers={self.controllers}",
            "--terminated-pod-gc-threshold=1000",
            # A node process that died is noticed in seconds; the defaults are made for slow networks.
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=16s",
        )
        self._start_client("kube-scheduler")

    def _start_client(self, name: str, *flags: str) -> None:
        identity = self.authority.issue(name, common_name=f"system:{name}")
        kubeconfig = write_kubeconfig(
            self.folder / f"{name}.kubeconfig",
            server=self.server,
            authority=self.authority.certificate,
            identity=identity,
            user=name,
        )
        self._run(
            name,
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--leader-elect=false",
            *flags,
        )

    def _run(self, name: str, *flags: str) -> None:
        self._process(name).start([self.binaries.path(name), *flags], directory=self.folder)

    def _process(self, name: str) -> Process:
        return Process(self.folder / "processes" / name)

    def _wait_for(self, name: str, ready: Callable[[client.ApiClient], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with connect(self.kubeconfig) as api:
            while True:
                for folder in (self.folder / "processes").iterdir():
                    Process(folder).require_alive(folder.name)
                if _succeeds(ready, api):
                    return
                if time.monotonic() > deadline:
                    log = self._process(name).log
                    raise ProcessError(f"{name} was not ready after {READY_SECONDS:.0f} s; see {log}")
                time.sleep(0.1)


def _tls_flags(pair: KeyPair, certificate_flag: str, key_flag: str) -> tuple[str, str]:
    return f"{certificate_flag}={pair.certificate}", f"{key_flag}={pair.key}"


def _api_ready(api: client.ApiClient) -> bool:
    return bool(api.call_api("GET", f"{api.configuration.host}/readyz").status == 200)


def _default_account_exists(api: client.ApiClient) -> bool:
    client.CoreV1Api(api).read_namespaced_service_account("default", "default")
    return True


def _succeeds(ready: Callable[[client.ApiClient], bool], api: client.ApiClient) -> bool:
    try:
        return ready(api)
    except (client.ApiException, urllib3.exceptions.HTTPError):
        return False
