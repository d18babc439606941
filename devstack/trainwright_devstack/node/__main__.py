"""The process of a node: `python -m trainwright_devstack.node --name NAME --kubeconfig FILE ...`."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from pathlib import Path

from trainwright_devstack.api import Api
from trainwright_devstack.certificates import KeyPair
from trainwright_devstack.node.agent import NodeAgent, NodeSettings
from trainwright_devstack.node.kubelet import KubeletServer
from trainwright_devstack.node.provisioner import Provisioner


def main() -> None:
    """Run the node until SIGTERM; its pods end with it."""
    arguments = _parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Api(arguments.kubeconfig) as api:
        settings = NodeSettings(
            name=arguments.name,
            folder=arguments.folder,
            port=arguments.port,
            owner=arguments.owner,
            backoff_seconds=arguments.backoff_seconds,
        )
        agent, provisioner = NodeAgent(api, settings), Provisioner(api, arguments.volumes)
        if arguments.certificate:
            pair = KeyPair(arguments.certificate, arguments.key)
            KubeletServer(arguments.port, pair, arguments.authority, agent.find_container).start()
        provisioner.start()
        agent.start()
        stop.wait()
        provisioner.stop()
        agent.stop()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A node that runs pods as local processes.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--volumes", type=Path, required=True, help="where claims become folders")
    parser.add_argument("--owner", type=int, required=True, help="process without which no pod goes on")
    parser.add_argument("--port", type=int, required=True, help="port of the logs")
    parser.add_argument("--certificate", type=Path, help="serving certificate; without it there are no logs")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--authority", type=Path)
    parser.add_argument("--backoff-seconds", type=float, default=1.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
