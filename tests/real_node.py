"""A real node for the tests: containerd and kubelet, with a network and mounts of their own.

Its pods are real containers. Their image is almost empty: every container sees this machine's programs, the
virtual environment and this repository read-only below fixed paths, through containerd's base specification,
so that pods need no hostPath and no image of 6 GB is made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container_image import IMAGES, MOUNTS, write_image
from node_configuration import CONTAINERD, NETWORK_PLUGINS, POD_RANGE, SHORT_OF_MEMORY, kubelet, network
from trainer_process import TrainerProcess

from trainwright_devstack.api import Api
from trainwright_devstack.certificates import KeyPair
from trainwright_devstack.controlplane import ControlPlane
from trainwright_devstack.kubeconfig import write_kubeconfig
from trainwright_devstack.node.provisioner import Provisioner
from trainwright_devstack.processes import Process, stop_below

if TYPE_CHECKING:
    from trainwright_devstack.binaries import Binaries, Say

Object = dict[str, Any]

PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy")
PACKAGES = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer", "blkio", "systemd")
CGROUPS = Path("/sys/fs/cgroup")
USER = 65532
READY_SECONDS = 120.0
GONE_SECONDS = 30.0


def missing(binaries: Binaries) -> list[str]:
    """Return all that a real node lacks on this machine."""
    lacks = [f"{name} in {binaries.folder}" for name in PROGRAMS if not (binaries.folder / name).exists()]
    lacks += [
        f"{program} (package {name})" for program, name in PACKAGES.items() if not shutil.which(program)
    ]
    if not (NETWORK_PLUGINS / "bridge").exists():
        lacks.append(f"network plugins in {NETWORK_PLUGINS} (package containernetworking-plugins)")
    if os.geteuid() != 0:
        lacks.append("the rights of root")
    if not (CGROUPS / "memory").is_dir():
        lacks.append("cgroups of version 1")
    return lacks


class RealNodeCluster:
    """A control plane of local programs, and one node with a kubelet; implements devstack's `Cluster`."""

    images = IMAGES
    health_port = 8080
    node_name = "real-node"

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        number = os.getpid() % 250
        self.host, self._address = f"10.99.{number}.1", f"10.99.{number}.2"
        self._name = f"trainwright{number}"
        self.plane = ControlPlane(folder / "control-plane", binaries, host=self.host)
        self.kubeconfig = self.plane.kubeconfig
        self.folder = folder / "node"
        self._assets = binaries.folder
        self._api: Api | None = None
        self._provisioner: Provisioner | None = None

    @property
    def description(self) -> str:
        """`kubelet and containerd` and the version of the API server."""
        return f"kubelet and containerd on kube-apiserver {self.plane.version()}"

    @property
    def kubectl(self) -> str:
        """The kubectl beside the control plane's programs."""
        return str(self._assets / "kubectl")

    def start(self, say: Say) -> None:
        """Start everything, and return when the node is ready."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_network()
        self._make_namespace()
        self.plane.start()
        self._make_cgroups()
        self._start_containerd()
        self._start_kubelet()
        self._start_proxy()
        self._api = Api(self.kubeconfig)
        self._provisioner = Provisioner(self._api, self.folder / "volumes", owner=USER)
        self._provisioner.start()
        wait(self._ready, "the node is ready")
        say("real node ready")

    def stop(self) -> None:
        """End the node with all that runs on it, and remove what it changed on this machine."""
        with ExitStack() as steps:  # last one first, and each of them whatever became of the others
            steps.callback(self._remove_network)
            steps.callback(wait, self._remove_cgroups, "the control groups are gone", GONE_SECONDS)
            steps.callback(self.plane.stop)
            steps.callback(stop_below, self.folder / "processes")
            steps.callback(self._kill_containers)
            if self._provisioner:
                steps.callback(self._provisioner.stop)
                steps.callback(self._delete_pods)

    # --- what runs on it

    def trainer(self, pod: Object) -> TrainerProcess | None:
        """Return a pod's trainer, or None before it runs."""
        found = self._cgroup("pids", pod)
        pids = (found / "cgroup.procs").read_text().split() if found else []
        metadata = pod["metadata"]
        name = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        return TrainerProcess(int(pids[0]), self._logs / name / "trainer/0.log") if pids else None

    def exhaust_memory(self, pod: Object) -> None:
        """Leave a pod hardly more memory than it has in use: the kernel kills it when it asks for more."""
        folder = self._cgroup("memory", pod)
        assert folder
        lines = (folder / "memory.stat").read_text().splitlines()
        used = int(next(line.split()[1] for line in lines if line.startswith("total_rss ")))
        for spare in (1, 4, 16, 64):
            with suppress(OSError):  # busy: what it has can't be made to fit
                (folder / "memory.limit_in_bytes").write_text(str(used + spare * 1024**2))
                return

    @contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """Let the kubelet find the node short of memory: it evicts pods, one by one, while this lasts."""
        self._restart_kubelet(SHORT_OF_MEMORY)
        try:
            yield
        finally:
            self._restart_kubelet()
            wait(self._ready, "the node is ready again")

    def _restart_kubelet(self, changes: Object | None = None) -> None:
        self._process("kubelet").stop()
        self._start_kubelet(changes)

    def _cgroup(self, controller: str, pod: Object) -> Path | None:
        """Return the control group of a pod's only container, or None before it runs."""
        states = pod.get("status", {}).get("containerStatuses") or [{}]
        container = states[0].get("containerID", "").removeprefix("containerd://")
        found = (CGROUPS / controller / self._name).rglob(container) if container else iter(())
        return next(found, None)

    def account_folder(self, pod: Object) -> Path:
        """Return where a pod's token and certificate authority lie."""
        volumes = self.folder / "kubelet/pods" / pod["metadata"]["uid"] / "volumes"
        mounts = f"/proc/{self._process('kubelet').pid()}/root"
        return Path(f"{mounts}{volumes}/kubernetes.io~projected/account")

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    # --- parts of the node

    def _make_network(self) -> None:
        """Join the namespace of the node's network to ours by a pair of devices."""
        inside = ["nsenter", f"--net=/run/netns/{self._name}"]
        for command in (
            ["ip", "netns", "add", self._name],
            ["ip", "link", "add", self._name, "type", "veth", "peer", "name", "eth0", "netns", self._name],
            ["ip", "addr", "add", f"{self.host}/24", "dev", self._name],
            ["ip", "link", "set", self._name, "up"],
            [*inside, "ip", "link", "set", "lo", "up"],
            [*inside, "ip", "addr", "add", f"{self._address}/24", "dev", "eth0"],
            [*inside, "ip", "link", "set", "eth0", "up"],
            [*inside, "ip", "route", "add", "default", "via", self.host],
            [*inside, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
        ):
            subprocess.run(command, check=True, capture_output=True)

    def _remove_network(self) -> None:
        for command in (["ip", "netns", "del", self._name], ["ip", "link", "del", self._name]):
            subprocess.run(command, check=False, capture_output=True)

    def _make_namespace(self) -> None:
        """Let what the node mounts be seen by its programs only, and be gone when they are.

        The names of its pods' networks, too, which are files that a pod killed by force would leave behind.
        """
        holder = self._process("mounts")
        hold = "mount -t tmpfs networks /run/netns && exec sleep infinity"
        holder.start(["unshare", "--mount", "--propagation", "slave", "sh", "-c", hold])
        wait(lambda: Path(f"/proc/{holder.pid()}/comm").read_text() == "sleep\n", "mounts of its own")

    def _remove_cgroups(self) -> bool:
        """Remove all that are empty, and tell whether that was all: what was killed takes its time to end."""
        roots = [CGROUPS / controller / self._name for controller in (*CONTROLLERS, "unified")]
        for root in roots:
            for folder, _, _ in os.walk(root, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
        return not any(root.exists() for root in roots)

    def _make_cgroups(self) -> None:
        for controller in CONTROLLERS:
            (CGROUPS / controller / self._name).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            above = (CGROUPS / "cpuset" / name).read_text()
            (CGROUPS / "cpuset" / self._name / name).write_text(above)

    def _start_containerd(self) -> None:
        socket = self.folder / "containerd.sock"
        (self.folder / "network").mkdir()
        (self.folder / "network/10-bridge.conflist").write_text(json.dumps(network(self.folder)))
        configuration = self.folder / "containerd.toml"
        configuration.write_text(CONTAINERD.format(folder=self.folder, plugins=NETWORK_PLUGINS))
        base: Object = json.loads(self._run("ctr", "oci", "spec"))
        base["mounts"] += [
            {"destination": to, "source": source, "type": "bind", "options": ["rbind", "ro"]}
            for to, source in MOUNTS.items()
        ]
        (self.folder / "base.json").write_text(json.dumps(base))
        self._begin("containerd", "-c", str(configuration))
        image = write_image(self.folder / "image.tar")
        wait(lambda: socket.exists() and self._ctr("version"), "containerd answers")
        assert self._ctr("-n", "k8s.io", "images", "import", str(image))

    def _start_kubelet(self, changes: Object | None = None) -> None:
        identity = self._issue("kubelet", f"system:node:{self.node_name}", "system:nodes")
        authority = self.plane.authority
        serving = authority.issue("serving", common_name=self.node_name, hosts=[self._address])
        trust: Object = {
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
        }
        configuration = kubelet(self.folder, self._address, self._name) | trust | (changes or {})
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(configuration))
        self._begin(
            "kubelet",
            f"--config={path}",
            f"--kubeconfig={identity}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--hostname-override={self.node_name}",
            f"--node-ip={self._address}",
        )

    def _start_proxy(self) -> None:
        self._begin(
            "kube-proxy",
            f"--kubeconfig={self._issue('kube-proxy', 'system:kube-proxy', None)}",
            f"--hostname-override={self.node_name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_RANGE}",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        )

    def _issue(self, name: str, user: str, group: str | None) -> Path:
        identity: KeyPair = self.plane.authority.issue(name, common_name=user, group=group)
        return write_kubeconfig(
            self.folder / f"{name}.kubeconfig",
            server=self.plane.server,
            authority=self.plane.authority.certificate,
            identity=identity,
            user=name,
        )

    def _begin(self, name: str, *flags: str) -> None:
        mounts = f"--mount=/proc/{self._process('mounts').pid()}/ns/mnt"
        inside = ["nsenter", f"--net=/run/netns/{self._name}", mounts, str(self._assets / name)]
        path = os.pathsep.join([str(self._assets), os.environ.get("PATH", os.defpath), "/usr/sbin"])
        self._process(name).start([*inside, *flags], environment={"PATH": path}, directory=self.folder)

    def _process(self, name: str) -> Process:
        return Process(self.folder / "processes" / name)

    def _ready(self) -> bool:
        for name in ("containerd", "kubelet", "kube-proxy"):
            self._process(name).require_alive(name)
        assert self._api is not None
        node = self._api.find(f"/api/v1/nodes/{self.node_name}") or {"spec": {"taints": "not yet there"}}
        held = {each["type"]: each["status"] for each in node.get("status", {}).get("conditions", [])}
        return held.get("Ready") == "True" and not node["spec"].get("taints")

    def _run(self, *words: str) -> str:
        return subprocess.run(
            [self._assets / words[0], *words[1:]], check=True, capture_output=True, text=True
        ).stdout

    def _ctr(self, *words: str) -> bool:
        command = [self._assets / "ctr", "-a", self.folder / "containerd.sock", *words]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def _delete_pods(self) -> None:
        """Let the kubelet end the pods: it takes their networks down, too."""
        command = [
            self.kubectl,
            "--kubeconfig",
            str(self.kubeconfig),
            "delete",
            "-A",
            "--all",
            "--wait=false",
        ]
        for kinds in ("trainingruns,jobs,deployments", "pods"):
            subprocess.run([*command, kinds, "--grace-period=1"], check=False, capture_output=True)
        with suppress(AssertionError):
            wait(lambda: not self._shims(), "all pods are gone", GONE_SECONDS)

    def _kill_containers(self) -> None:
        """Kill what is left in containers, and the shims that look after them."""
        for path in (CGROUPS / "pids" / self._name).rglob("cgroup.procs"):
            _kill(map(int, path.read_text().split()))
        _kill(self._shims())

    def _shims(self) -> list[int]:
        """Return the processes that look after this node's pods."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if "shim" in words[0] and f"{self.folder}/containerd.sock" in words:
                    found.append(int(path.parent.name))
        return found


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait(reached: Any, what: str, seconds: float = READY_SECONDS) -> None:
    """Return as soon as something holds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
