"""A node without a kubelet: it runs the containers of pods as processes of this machine.

What it can't do it refuses by name in the pod's status (`refusals`), or ignores and says so in
docs/devstack.md. The rest follows the kubelet's rules:

    agent         the node itself: registration, heartbeat, which pods are here
    pod           the life of one pod, derived from its object and from what lies on disk
    container     one container's processes, one after the other
    launching     from its specification to a process
    volumes       ConfigMaps, Secrets, tokens, claims and folders as directories
    environment   variables and words of the command line
    paths         container paths become paths of this machine
    podstatus     what is reported
    kubelet       the logs, for `kubectl logs`
    provisioner   claims become folders
"""
