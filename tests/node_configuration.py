"""What the programs of the real node are told: containerd, its network plug-in and the kubelet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Object = dict[str, Any]

NETWORK_PLUGINS = Path("/usr/lib/cni")
POD_RANGE = "10.244.0.0/24"


def network(folder: Path) -> Object:
    """Return the network of the node's pods: a bridge, with addresses noted in a folder."""
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "network-state"),
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def kubelet(folder: Path, address: str, cgroup: str) -> Object:
    """Return the kubelet's configuration, but for what it trusts."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "address": address,
        "healthzBindAddress": "127.0.0.1",
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "failSwapOn": False,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        "volumeStatsAggPeriod": "10s",
        "podLogsDir": str(folder / "logs"),
    }


# Nearly all memory is to be free: so it runs short, whatever the machine has.
SHORT_OF_MEMORY: Object = {
    "evictionSoft": {"memory.available": "99%"},
    "evictionSoftGracePeriod": {"memory.available": "1s"},
    "evictionMaxPodGracePeriod": 1,
}


CONTAINERD = """\
version = 3
root = '{folder}/containerd/root'
state = '{folder}/containerd/state'
disabled_plugins = ['io.containerd.nri.v1.nri']
[grpc]
  address = '{folder}/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'registry.local/pause:test'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'oci'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.oci]
      runtime_type = 'io.containerd.runc.v2'
      base_runtime_spec = '{folder}/base.json'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.oci.options]
        BinaryName = 'runc'
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{plugins}']
    conf_dir = '{folder}/network'
"""
