"""Job scripts: renders a `Job` on a `Site` as shell text."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from util.errors import ConfigError
from util.launch.sites import Site, check_time
from util.launch.sweeps import n_jobs, read_runs, sweep_items

PEER_TIMEOUT_S = 60  # from the exit of the first process of a distributed run until the others are killed
JOB_NAME = "frugalseg"


@dataclass(frozen=True)
class Job:
    """What to run, and where. 0 and empty strings select the site's defaults."""

    site: Site
    mode: Literal["runs", "one"]  # many independent runs, one per GPU; or one run on many GPUs
    settings: tuple[str, ...]  # named configs and key=value, as after `training.py with`
    sweep: tuple[str, ...] = ()  # key=value,value; only with mode="runs"
    runs: str = ""  # file with a line per run, in place of a sweep
    finished: str = ""  # folder that records finished runs, which are skipped; only with mode="runs"
    nodes: int = 1
    gpus_per_node: int = 0
    cores_per_task: int = 0
    runs_per_job: int = 0
    at_once: int = 0  # array jobs that may run at the same time; 0: no limit
    train_only: bool = False
    account: str = ""
    partition: str = ""
    qos: str = ""
    time: str = ""
    environment: str = ""
    scratch: str = ""
    sbatch: tuple[str, ...] = ()  # extra options, after the site's

    def __post_init__(self) -> None:
        for name in self.site.required_options:
            if not getattr(self, name):
                raise ConfigError(f"--{name}: missing; required on {self.site.title}.")
        if self.mode == "one" and (self.sweep or self.runs_per_job or self.runs or self.finished):
            raise ConfigError(
                "--sweep, --runs, --finished and --runs-per-job: only with --mode runs; --mode one is a single run."
            )
        if self.sweep and self.runs:
            raise ConfigError("--runs and --sweep: expected one of them.")
        if self.nodes < 1:
            raise ConfigError(f"--nodes {self.nodes}: expected 1 or more.")
        if self.time:
            check_time(self.time, self.site.signal_lead_s, "--time ")
        for option in self.sbatch:
            if not option.startswith("-"):
                raise ConfigError(f"--sbatch {option}: expected an option of sbatch, such as --sbatch=--exclusive.")
        for name in ("gpus_per_node", "cores_per_task", "runs_per_job", "at_once"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 1 or more.")
        if self.mode == "runs" and self.tasks > self.nodes * self.gpus:
            raise ConfigError(
                f"--runs-per-job {self.tasks}: {self.nodes} node(s) have {self.nodes * self.gpus} GPUs. Increase "
                "--nodes or decrease --runs-per-job; the remaining runs go to further array jobs."
            )

    @property
    def gpus(self) -> int:
        """GPUs per node."""
        return self.gpus_per_node or self.site.gpus_per_node

    @cached_property
    def n_items(self) -> int:
        """Number of independent runs."""
        return len(read_runs(Path(self.runs)) if self.runs else sweep_items(self.sweep))

    @property
    def tasks(self) -> int:
        """Processes per job, one per GPU."""
        if self.mode == "one":
            return self.nodes * self.gpus
        capacity = self.nodes * self.gpus if self.site.exclusive_nodes or self.nodes > 1 else 1
        return self.runs_per_job or min(capacity, self.n_items)

    @property
    def tasks_per_node(self) -> int:
        """Processes per node."""
        return -(-self.tasks // self.nodes)

    @property
    def n_jobs(self) -> int:
        """Number of jobs in the array."""
        return n_jobs(self.n_items, self.tasks)

    @property
    def log_folder(self) -> str:
        """Folder of the job logs, next to the experiments."""
        folders = [item.partition("=")[2] for item in self.settings if item.startswith("path.log_dir=")]
        return f"{(folders or ['exps'])[-1]}/slurm"

    def substitute(self, text: str) -> str:
        """Replaces the {names} in a string of the site."""
        values = {
            "environment": self.environment or self.site.environment,
            "scratch": self.scratch or self.site.scratch,
            "gpus": str(self.tasks_per_node),
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def training_script(job: Job, command: str = "") -> str:
    """Batch script of the training runs; `command`, which rendered it, is noted in a comment."""
    if job.mode == "runs":
        title = f"{job.n_items} independent run(s), {job.tasks} per job, one per GPU"
        suffix = "%A_%a" if job.n_jobs > 1 else "%j"
    else:
        title, suffix = f"one run on {job.tasks} GPU(s)", "%j"
    at_once = f"%{job.at_once}" if job.at_once else ""
    options = [
        *_resources(job, job.nodes, job.tasks_per_node),
        *([f"--array=0-{job.n_jobs - 1}{at_once}"] if job.mode == "runs" and job.n_jobs > 1 else []),
        f"--signal=USR1@{job.site.signal_lead_s}",
        "--requeue",
        "--open-mode=append",
    ]
    return "\n".join(
        [
            *_header(job, title, JOB_NAME, suffix, options, command),
            *_environment(job, is_training=True),
            "",
            "run() {",
            *(f"    {line}" for line in (_independent_runs(job) if job.mode == "runs" else _distributed_run(job))),
            "}",
            "",
            "# 75: checkpoint saved after USR1; 138: USR1 came before its handler was set. The requeued job resumes.",
            "# TERM also ends this shell: Slurm then requeues the job itself (preemption), or it was cancelled.",
            "code=0",
            "run || code=$?",
            "if [[ $code == 75 || $code == 138 ]]; then",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        ]
    )


def collect_script(job: Job) -> str:
    """Batch script that collects all completed validation runs into one table."""
    options = [*_resources(job, 1, 1), "--open-mode=append"]
    settings = shlex.join(job.settings)
    return "\n".join(
        [
            *_header(job, "table of all completed validation runs", f"{JOB_NAME}-collect", "%j", options, ""),
            *_environment(job, is_training=False),
            "",
            f"python validation.py collect with {settings}".rstrip(),
            "",
        ]
    )


def _resources(job: Job, nodes: int, tasks_per_node: int) -> list[str]:
    named = {name: getattr(job, name) or getattr(job.site, name, "") for name in ("account", "partition", "qos")}
    options = [f"--{name}={value}" for name, value in named.items() if value]
    options += [f"--time={job.time or job.site.time}", f"--nodes={nodes}"]
    if not job.site.exclusive_nodes:
        options += [f"--ntasks-per-node={tasks_per_node}", f"--cpus-per-task={_cores(job)}"]
    return options + [job.substitute(option) for option in (*job.site.sbatch, *job.sbatch)]


def _header(job: Job, title: str, name: str, suffix: str, options: list[str], command: str) -> list[str]:
    return [
        "#!/usr/bin/env bash",
        f"# {title}, on {job.site.title}.",
        f"# In the repository root: mkdir -p {shlex.quote(job.log_folder)}, then sbatch this file.",
        *([f"# Rendered by: {command}"] if command else []),
        f"#SBATCH --job-name={name}",
        *(f"#SBATCH {option}" for option in options),
        f"#SBATCH --output={shlex.quote(f'{job.log_folder}/%x-{suffix}.out')}",
    ]


def _environment(job: Job, is_training: bool) -> list[str]:
    site = job.site
    lines = ["set -euo pipefail"]
    setup = [*(f"module load {module}" for module in site.modules), *map(job.substitute, site.setup)]
    if setup:
        lines = ["set -eo pipefail", *setup, "set -u # only now: modules and activation scripts often fail with it"]
    variables = site.variables | (site.rendezvous if job.mode == "one" and is_training else {})
    if variables:
        lines += ["", *(f'{name}="{job.substitute(value)}"' for name, value in variables.items())]
        lines += [f"export {' '.join(variables)}"]
    nodes = job.nodes if is_training else 1
    once = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1"
    return [*lines, *(f"{once} {job.substitute(line)}" for line in site.node_setup)]


def _cores(job: Job) -> int:
    return job.cores_per_task or job.site.cores_per_task


def _srun(job: Job, nodes: int, tasks: int, *options: str) -> str:
    sizes = [f"--nodes={nodes}", f"--ntasks={tasks}", f"--ntasks-per-node={-(-tasks // nodes)}"]
    return " ".join(["srun", *sizes, f"--cpus-per-task={_cores(job)}", *map(job.substitute, job.site.srun), *options])


def _independent_runs(job: Job) -> list[str]:
    """Command of the runs; a failing run does not stop the others."""
    options = ["--sweep", *job.sweep] if job.sweep else []
    options += [f"--{name}={value}" for name in ("runs", "finished") if (value := getattr(job, name))]
    options += ["--train-only"] if job.train_only else []
    return [
        f"{_srun(job, job.nodes, job.tasks, '--kill-on-bad-exit=0', '--wait=0')} \\",
        f"    python -m util.launch.item {shlex.join([*options, '--', *job.settings])}",
    ]


def _distributed_run(job: Job) -> list[str]:
    """Command of the run; if a process exits early, the others are killed after the time they need to save."""
    lines = [
        f"{_srun(job, job.nodes, job.tasks, '--kill-on-bad-exit=0', f'--wait={PEER_TIMEOUT_S}')} \\",
        f"    python training.py with {shlex.join(job.settings)}",
    ]
    if job.train_only:
        return lines
    lines[-1] += " &&"
    return [*lines, f"    {_srun(job, 1, 1)} \\", f"        python validation.py with {shlex.join(job.settings)}"]
