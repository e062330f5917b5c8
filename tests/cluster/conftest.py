"""A local Slurm cluster, started once per session: a controller and four node daemons on this machine.

Nodes 1 and 2 are configured with 4 GPUs and 32 cores each, nodes 3 and 4 like those of Frontier.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNPACKED = Path(sys.prefix) / "slurm"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
NODES = [f"127.0.0.{number}" for number in range(1, 5)]  # addresses as names, so that jobs can resolve their first node
TIMEOUT_S = 120.0
MISSING = (
    "Slurm is not installed. Run `make slurm`, which installs or unpacks the Debian packages; on other systems install "
    "slurmctld, slurmd, the Slurm commands and munge."
)
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={slurmd_port}
SrunPortRange={first_srun_port}-{last_srun_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
AllowSpecResourcesUsage=YES
ReturnToService=2
JobRequeue=1
FirstJobId={first_job}
KillWait=15
SlurmdTimeout=30
SlurmctldTimeout=30
NodeName=127.0.0.[1-2] {address} Port={node_port}-{node_port_1} {generic} CPUs=32 SocketsPerBoard=1 CoresPerSocket=32
NodeName=127.0.0.[3-4] {address} Port={node_port_2}-{node_port_3} {frontier} CPUs=64 SocketsPerBoard=8 CoresPerSocket=8
PartitionName=debug Nodes=127.0.0.[1-2] Default=YES MaxTime=04:00:00 PriorityTier=1
PartitionName=urgent Nodes=127.0.0.[1-2] MaxTime=04:00:00 PriorityTier=10
PartitionName=batch Nodes=127.0.0.[3-4] MaxTime=02:00:00 OverSubscribe=EXCLUSIVE
{plugins}
"""
# Slurm only uses the names of the device files.
GPUS = "NodeName=127.0.0.[1-2] Name=gpu File=/dev/tty[0-3]\nNodeName=127.0.0.[3-4] Name=gpu File=/dev/tty[0-7]\n"


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Waits until the condition is true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"timed out after {timeout_s} s waiting for {what}"
        time.sleep(0.1)


class Slurm:
    """A separate cluster in `folder`, run from the installed programs or from those unpacked by `make slurm`.

    An existing Slurm configuration of this machine is not touched.
    """

    wait_until = staticmethod(wait_until)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_unpacked = self._program("slurmctld") is None
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        if self.is_unpacked:
            assert UNPACKED.is_dir(), MISSING
            libraries = f"{UNPACKED}/{LIBRARIES}/slurm-wlm:{UNPACKED}/{LIBRARIES}"
            self.environment |= {"LD_LIBRARY_PATH": libraries, "PATH": f"{UNPACKED}/usr/bin:{os.environ['PATH']}"}
        self.environment.pop("SLURM_JOB_ID", None)
        self.port = next(port for port in range(24000, 32000, 200) if _is_free(port))
        self._write()

    def _program(self, name: str) -> str | None:
        return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")

    def _daemon(self, name: str) -> str:
        unpacked = UNPACKED / "usr/sbin" / (name if name == "munged" else f"{name}-wlm")
        program = str(unpacked) if self.is_unpacked else self._program(name)
        assert program is not None, f"{name} is missing. {MISSING}"
        return program

    def _write(self) -> None:
        self.folder.chmod(0o755)
        for name in ("state", "log", "munge", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "munge").chmod(0o711)  # munged requires a folder that its clients can enter
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        rest = "NodeHostname=localhost NodeAddr=127.0.0.1 Boards=1 ThreadsPerCore=1 RealMemory=4000"
        gpus = ["", ""] if self.is_unpacked else ["Gres=gpu:4", "Gres=gpu:8"]
        plugins = f"PluginDir={UNPACKED}/{LIBRARIES}/slurm-wlm" if self.is_unpacked else "GresTypes=gpu"
        ports = {f"node_port{f'_{n}' if n else ''}": self.port + 10 + n for n in range(4)}
        text = CONFIGURATION.format(
            folder=self.folder, user=_user(), port=self.port, slurmd_port=self.port + 1,
            first_srun_port=self.port + 100, last_srun_port=self.port + 199,
            first_job=40000 + (self.port - 24000) // 4,  # jobs derive the port of their process group from their id
            address=rest, generic=gpus[0], frontier=f"Feature=nvme {gpus[1]}", plugins=plugins, **ports,
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        if not self.is_unpacked:
            (self.folder / "gres.conf").write_text(GPUS)

    def adapt(self, path: Path) -> Path:
        """Adapts a site or a job script to this cluster: an unpacked Slurm has no GPU support."""
        if not self.is_unpacked:
            return path
        without = self.folder / path.name
        without.write_text(re.sub(r'#SBATCH --gpus\S*\n|"--gpu[^"]*",? ?', "", path.read_text()))
        return without

    def start(self) -> None:
        """Starts all daemons and waits until all nodes are idle."""
        munge = self.folder / "munge"
        files = [f"--{key}-file={munge / key}" for key in ("key", "pid", "log", "seed")]
        self.call(self._daemon("munged"), *files, f"--socket={munge / 'sock'}", "--num-threads=2")
        self.call(self._daemon("slurmctld"), "-f", str(self.folder / "slurm.conf"))
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self.call("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * 6, "idle nodes", 30)

    def start_node(self, node: str) -> None:
        stepd = ["-d", self._daemon("slurmstepd")] if self.is_unpacked else []
        self.call(self._daemon("slurmd"), "-f", str(self.folder / "slurm.conf"), "-N", node, *stepd)

    def kill_node(self, node: str, job: str) -> None:
        """Simulates a power failure: kills the daemon and the job of a node and marks the node as down."""
        pids = [int((self.folder / f"slurmd.{node}.pid").read_text()), *self.processes(job)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def processes(self, job: str) -> list[int]:
        """Process ids of a job of this cluster, including its step daemons."""
        marks = {f"SLURM_CONF={self.folder}/slurm.conf".encode(), f"SLURM_JOB_ID={job}".encode()}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                title, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if marks <= set(variables) or title.startswith(f"slurmstepd: [{job}.".encode()):
                found.append(int(process.name))
        return found

    def stop(self) -> None:
        """Stops all jobs, then all daemons."""
        if (self.folder / "slurmctld.pid").exists():
            self.call("scancel", "--quiet", "--user", _user())
            wait_until(lambda: not self.call("squeue", "-h"), "the end of all jobs", 30)
        pid_files = [*self.folder.glob("slurmd.*.pid"), self.folder / "slurmctld.pid", self.folder / "munge" / "pid"]
        daemons = [int(file.read_text()) for file in pid_files if file.exists()]
        for daemon in daemons:
            os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: not any(_is_running(daemon) for daemon in daemons), "the end of the daemons", 30)

    @staticmethod
    def output(logs: Path) -> str:
        """Output of the jobs whose results are in `logs`."""
        return "".join(path.read_text() for path in (logs / "slurm").glob("*.out"))

    def call(self, *command: str, folder: Path = ROOT, **variables: str) -> str:
        """Runs a command against this cluster and returns its output."""
        result = subprocess.run(
            command,
            cwd=folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}"
        return result.stdout

    def jobs(self, job: str) -> list[dict[str, str]]:
        """State of a job, or of each job of an array, as reported by scontrol."""
        lines = self.call("scontrol", "show", "job", job, "--oneliner").splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]

    def wait(self, job: str, *states: str) -> list[dict[str, str]]:
        """Waits until a job, or each job of an array, is in one of the states; requeued jobs start after 6 s."""
        wait_until(
            lambda: all(one["JobState"] in states for one in self.jobs(job)), f"job {job} to be {' or '.join(states)}"
        )
        return self.jobs(job)


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _is_free(first: int) -> bool:
    for port in (first, *range(first + 10, first + 14)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture(scope="session")
def slurm():
    """A running cluster."""
    assert "SLURM_CONF" not in os.environ, "SLURM_CONF is set, but these tests start their own Slurm: unset it."
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        cluster = Slurm(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the state and logs of the cluster to the report of a failed test."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("slurm")
    if report.failed and cluster is not None:
        logs = "\n".join(f"{log}:\n{log.read_text()[-1500:]}" for log in cluster.folder.glob("log/slurm*.log"))
        report.sections.append(("Slurm", f"{cluster.call('scontrol', 'show', 'job', '--oneliner')}\n{logs}"))
    return report
