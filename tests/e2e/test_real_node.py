"""What only a real node does: it confines a trainer, ends it politely, and kills it for its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stack_cluster import Cluster, wait
from trainer_process import TrainerProcess
from whole_stack import Team, freeze_after_epoch, trained_epochs

from trainwright.contract import ExitCode

Object = dict[str, Any]

USER = "65532"
SHARED, SHARED_MEMORY = "/dev/shm", "112Mi"  # noqa: S108


pytestmark = pytest.mark.real_node


@pytest.fixture(scope="module")
def confined(team: Team) -> tuple[TrainerProcess, Object]:
    """A trainer that trains, and its pod."""
    compute = team.manifest("confined")["spec"]["compute"] | {"sharedMemory": SHARED_MEMORY}
    training = team.manifest("confined")["spec"]["training"] | {"epochs": 6}
    team.apply(team.manifest("confined", "confined", compute=compute, training=training))
    trainer = team.trainer("confined", 1)
    freeze_after_epoch(trainer, 1)
    return trainer, team.pod("confined", 1)


def _mounts(trainer: TrainerProcess) -> dict[str, str]:
    """Return the options of each mount that the trainer sees, by its path."""
    lines = Path(f"/proc/{trainer.pid}/mountinfo").read_text().splitlines()
    return {line.split()[4]: f"{line.split()[5]},{line.split()[-1]}" for line in lines}


def test_a_trainer_is_nobody_and_may_gain_nothing(confined: tuple[TrainerProcess, Object]) -> None:
    trainer, _ = confined
    text = Path(f"/proc/{trainer.pid}/status").read_text()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}
    assert set(status["Uid"]) == {USER}
    assert set(status["Gid"]) == {USER}
    assert status["CapEff"] == status["CapBnd"] == ["0" * 16]
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]


def test_only_its_own_volumes_can_be_written(confined: tuple[TrainerProcess, Object]) -> None:
    trainer, _ = confined
    mounts = _mounts(trainer)
    assert mounts["/"].startswith("ro")
    writable = {path for path, options in mounts.items() if options.startswith("rw")}
    writable = {path for path in writable if _may_write(Path(f"/proc/{trainer.pid}/root{path}"))}
    own = {"/workspace", "/tmp", SHARED, "/dev/termination-log"}  # noqa: S108
    assert own <= writable
    # What is hidden below /proc is /dev/null in its place.
    assert all(path.startswith(("/dev/", "/proc/")) for path in writable - own), writable


def _may_write(path: Path) -> bool:
    """Whether the mode of a file or folder lets the trainer write to it."""
    found = path.stat()
    mine = found.st_uid == int(USER), found.st_gid == int(USER), True
    return any(may and found.st_mode & bit for may, bit in zip(mine, (0o200, 0o020, 0o002), strict=True))


def test_shared_memory_has_the_size_asked_for(confined: tuple[TrainerProcess, Object]) -> None:
    assert f"size={int(SHARED_MEMORY.removesuffix('Mi')) * 1024}k" in _mounts(confined[0])[SHARED]


def test_a_pod_asked_to_end_tells_so_itself_and_the_run_goes_on(
    team: Team, cluster: Cluster, confined: tuple[TrainerProcess, Object]
) -> None:
    """SIGTERM, the rest of the batch, and the last word in the termination message."""
    trainer, pod = confined
    epoch = freeze_after_epoch(trainer, 2)
    name = pod["metadata"]["name"]
    watch = cluster.start(
        "get", "pod", name, "-n", team.namespace, "--watch", "-o", "json", output=team.folder / "ended.json"
    )
    try:
        team.kubectl("delete", "pod", name, "--wait=false")
        trainer.thaw()
        status = team.wait_for_phase("confined", "Succeeded")
    finally:
        watch.kill()
        watch.wait()
    ended = (team.folder / "ended.json").read_text()
    assert '\\"outcome\\":\\"Failed\\"' in ended
    assert '\\"cause\\":\\"Preempted\\"' in ended
    assert f'"exitCode": {ExitCode.PREEMPTED:d}' in ended
    first, second = status["attempts"]
    assert first["cause"] == "Preempted"
    assert second["resumedFromEpoch"] == epoch
    team.assert_published_once("confined", "confined")


def test_a_pod_above_its_memory_is_killed_by_the_kernel_and_the_run_says_what_to_raise(team: Team) -> None:
    compute = team.manifest("cramped")["spec"]["compute"]
    compute |= {"resources": {"limits": {"memory": "200Mi"}}}
    team.apply(team.manifest("cramped", "cramped", compute=compute, retry={"outOfMemory": 1}))
    status = team.wait_for_phase("cramped", "Failed")
    causes = [attempt["cause"] for attempt in status["attempts"]]
    assert causes == ["HostOOM", "HostOOM"]
    assert "resources.limits.memory" in status["failure"]["hint"]
    wait(lambda: team.published("cramped") == {"small": [], "big": []}, "nothing is published")


def test_a_training_that_the_kernel_kills_once_goes_on(team: Team, cluster: Cluster) -> None:
    assert cluster.real_node
    run, epochs = "squeezed", 4
    training = team.manifest(run)["spec"]["training"] | {"epochs": epochs}
    team.apply(team.manifest(run, run, training=training))
    trainer = team.trainer(run, 1)
    freeze_after_epoch(trainer, 2)
    cluster.real_node.exhaust_memory(team.pod(run, 1))
    trainer.thaw()
    status = team.wait_for_phase(run, "Succeeded")
    first, second = status["attempts"]
    assert (first["cause"], first["exitCode"]) == ("HostOOM", 137)
    assert second["outcome"] == "Succeeded"
    before, after = (trained_epochs(team.logs(run, attempt)) for attempt in (1, 2))
    assert [*before, *after] == list(range(1, epochs + 1))
    team.assert_published_once(run, run)
