"""A real Slurm for tests, from Debian's packages: a controller and two nodes of one core each, on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.servers import skip_without_servers

_CONF = """
ClusterName=scythe
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=5
ReturnToService=2
KillWait=5
MaxArraySize=1001
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={one} CPUs=1 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={two} CPUs=1 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_PATIENCE_SECONDS = 240.0


@dataclass(frozen=True)
class Slurm:
    """A running cluster; `conf` is what SLURM_CONF must name."""

    conf: Path
    controller: list[subprocess.Popen[bytes]]

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands answers."""
        program = (
            shutil.which(command[0], path="/usr/bin:/usr/sbin:/bin:/sbin") or command[0]
        )  # whatever a test does to PATH
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, env=self.environment, check=False
        )
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def queue(self, state: str = "all") -> list[str]:
        """The jobs that are there, elements of arrays one by one."""
        return self.ask("squeue", "--noheader", "--array", f"--states={state}", "--format=%i %T").splitlines()

    def empty(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.ask("squeue", "--noheader").strip()


@contextlib.contextmanager
def slurm_server() -> Generator[Slurm]:
    """A running cluster; it ends with the block."""
    skip_without_servers()
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", "setpriv") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a Slurm of its own needs root, and Debian's slurm-wlm and munge; {missing or 'root'} is missing")
    _start_munge()
    folder = Path(tempfile.mkdtemp(prefix="scythe-slurm-"))
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    ports = dict(zip(("controller", "one", "two"), _free_ports(3), strict=True))
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(host=socket.gethostname(), folder=folder, **ports))
    started = [_daemon(folder, "slurmctld"), *(_daemon(folder, "slurmd", "-N", node) for node in ("n1", "n2"))]
    slurm = Slurm(conf, started[:1])
    try:
        try:
            until(
                lambda: slurm.ask("sinfo", "--noheader", "--format=%D %T").split()[:2] == ["2", "idle"],
                "two idle nodes",
            )
        except AssertionError:
            pytest.skip(f"Slurm does not come up on this machine: {slurm.ask('sinfo', '--list-reasons')}")
        yield slurm
    finally:
        slurm.ask("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            until(slurm.empty, "an empty queue", 15)
        for process in [*slurm.controller[-1:], *started]:
            process.terminate()
        for process in [*slurm.controller[-1:], *started]:
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def restarted(slurm: Slurm) -> None:
    """Starts the controller again, which somebody has ended."""
    slurm.controller.append(_daemon(slurm.conf.parent, "slurmctld"))
    until(lambda: "idle" in slurm.ask("sinfo", "--noheader", "--format=%T"), "the controller and its nodes")


def _daemon(folder: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    command = ["setpriv", "--pdeathsig", "KILL", name, "-D", "-f", str(folder / "slurm.conf"), *more]
    with (folder / f"{name}{''.join(more)}.out").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _start_munge() -> None:
    """Munge is one for the machine; whoever needs it first starts it."""
    with FileLock("/run/scythe-munge.lock"):
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
            return
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge")
        command = ["runuser", "-u", "munge", "--", "munged"]
        done = subprocess.run(command, check=False, start_new_session=True, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"munge, which Slurm needs, does not start on this machine: {done.stderr.strip()}")
        until(lambda: subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0, "munge")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(holds: Callable[[], bool], what: str, seconds: float = _PATIENCE_SECONDS) -> None:
    """Waits for what Slurm, which tells nobody by itself, comes to."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.05)
