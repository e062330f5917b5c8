"""The job scripts themselves: a site and a job in, shell text out."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from util.errors import ConfigError
from util.launch.sites import Site
from util.launch.sweeps import n_jobs, sweep_items

PEERS_WAIT_S = 60  # between the first and the last process of a training to leave
NAME = "frugalseg"


@dataclass(frozen=True)
class Job:
    """What is to run, and where. Numbers of 0 and empty texts are the site's own."""

    site: Site
    mode: Literal["runs", "one"]  # many independent runs, one per GPU; or one training on many GPUs
    words: tuple[str, ...]  # what follows `training.py with`
    sweep: tuple[str, ...] = ()  # of independent runs
    nodes: int = 1
    gpus_per_node: int = 0
    cores_per_task: int = 0
    runs_per_job: int = 0
    at_once: int = 0  # jobs of an array that may run at the same time; 0: any number
    train_only: bool = False
    account: str = ""
    partition: str = ""
    qos: str = ""
    time: str = ""
    environment: str = ""
    scratch: str = ""
    sbatch: tuple[str, ...] = ()  # options after the site's

    def __post_init__(self) -> None:
        for name in self.site.ask:
            if not getattr(self, name):
                raise ConfigError(f"--{name}: missing; {self.site.title} needs it.")
        if self.mode == "one" and (self.sweep or self.runs_per_job):
            raise ConfigError("--sweep and --runs-per-job: only with --mode runs; --mode one is a single training.")
        if self.nodes < 1:
            raise ConfigError(f"--nodes {self.nodes}: expected 1 or more.")
        for name in ("gpus_per_node", "cores_per_task", "runs_per_job", "at_once"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 1 or more.")
        if self.mode == "runs" and self.tasks > self.nodes * self.gpus:
            raise ConfigError(
                f"--runs-per-job {self.tasks}: {self.nodes} node(s) have {self.nodes * self.gpus} GPUs. Ask for more "
                "--nodes, or for fewer runs per job; the others become further jobs."
            )

    @property
    def gpus(self) -> int:
        """GPUs of a node."""
        return self.gpus_per_node or self.site.gpus_per_node

    @cached_property
    def n_items(self) -> int:
        """Independent runs."""
        return len(sweep_items(self.sweep))

    @property
    def tasks(self) -> int:
        """Processes of a job, one per GPU."""
        if self.mode == "one":
            return self.nodes * self.gpus
        fitting = self.nodes * self.gpus if self.site.whole_nodes or self.nodes > 1 else 1
        return self.runs_per_job or min(fitting, self.n_items)

    @property
    def tasks_per_node(self) -> int:
        """Processes of each node."""
        return -(-self.tasks // self.nodes)

    @property
    def n_jobs(self) -> int:
        """Jobs of the array."""
        return n_jobs(self.n_items, self.tasks)

    @property
    def log_folder(self) -> str:
        """Where the jobs' output goes: beside the experiments."""
        folders = [word.partition("=")[2] for word in self.words if word.startswith("path.log_dir=")]
        return f"{(folders or ['exps'])[-1]}/slurm"

    def fill(self, text: str) -> str:
        """A site's text with its {names} filled in."""
        values = {
            "environment": self.environment or self.site.environment,
            "scratch": self.scratch or self.site.scratch,
            "gpus": str(self.tasks_per_node),
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def training_script(job: Job, command: str = "") -> str:
    """The batch script of the training or trainings; `command` is noted as what rendered it."""
    if job.mode == "runs":
        what = f"{job.n_items} independent run(s), {job.tasks} per job, one per GPU"
        suffix = "%A_%a" if job.n_jobs > 1 else "%j"
    else:
        what, suffix = f"one training on {job.tasks} GPU(s)", "%j"
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
            *_head(job, what, NAME, suffix, options, command),
            *_environment(job, is_training=True),
            "",
            "run() {",
            *(f"    {line}" for line in (_runs(job) if job.mode == "runs" else _one(job))),
            "}",
            "",
            "# 75: saved and left on USR1; 138: USR1 came before it could listen. The next start goes on from there.",
            "# TERM ends this shell too: then Slurm requeues by itself, or was told to cancel.",
            "code=0",
            "run || code=$?",
            "if [[ $code == 75 || $code == 138 ]]; then",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        ]
    )


def collecting_script(job: Job) -> str:
    """The batch script that gathers all finished validations into one table."""
    options = [*_resources(job, 1, 1), "--open-mode=append"]
    words = shlex.join(job.words)
    return "\n".join(
        [
            *_head(job, "the table of all finished validations", f"{NAME}-collect", "%j", options, ""),
            *_environment(job, is_training=False),
            "",
            f"python validation.py collect with {words}".rstrip(),
            "",
        ]
    )


def _resources(job: Job, nodes: int, tasks_per_node: int) -> list[str]:
    named = {name: getattr(job, name) or getattr(job.site, name, "") for name in ("account", "partition", "qos")}
    options = [f"--{name}={value}" for name, value in named.items() if value]
    options += [f"--time={job.time or job.site.time}", f"--nodes={nodes}"]
    if not job.site.whole_nodes:
        options += [f"--ntasks-per-node={tasks_per_node}", f"--cpus-per-task={_cores(job)}"]
    return options + [job.fill(option) for option in (*job.site.sbatch, *job.sbatch)]


def _head(job: Job, what: str, name: str, suffix: str, options: list[str], command: str) -> list[str]:
    return [
        "#!/usr/bin/env bash",
        f"# {what}, on {job.site.title}.",
        f"# From the repository's root: mkdir -p {shlex.quote(job.log_folder)}, then sbatch this file.",
        *([f"# Rendered by: {command}"] if command else []),
        f"#SBATCH --job-name={name}",
        *(f"#SBATCH {option}" for option in options),
        f"#SBATCH --output={shlex.quote(f'{job.log_folder}/%x-{suffix}.out')}",
    ]


def _environment(job: Job, is_training: bool) -> list[str]:
    site = job.site
    lines = ["set -euo pipefail"]
    prepared = [*(f"module load {module}" for module in site.modules), *map(job.fill, site.setup)]
    if prepared:
        lines = ["set -eo pipefail", *prepared, "set -u # only now: modules and activation scripts seldom bear it"]
    variables = site.variables | (site.rendezvous if job.mode == "one" and is_training else {})
    if variables:
        lines += ["", *(f'{name}="{job.fill(value)}"' for name, value in variables.items())]
        lines += [f"export {' '.join(variables)}"]
    nodes = job.nodes if is_training else 1
    once = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1"
    return [*lines, *(f"{once} {job.fill(line)}" for line in site.per_node)]


def _cores(job: Job) -> int:
    return job.cores_per_task or job.site.cores_per_task


def _srun(job: Job, nodes: int, tasks: int, *options: str) -> str:
    sizes = [f"--nodes={nodes}", f"--ntasks={tasks}", f"--ntasks-per-node={-(-tasks // nodes)}"]
    return " ".join(["srun", *sizes, f"--cpus-per-task={_cores(job)}", *map(job.fill, job.site.srun), *options])


def _runs(job: Job) -> list[str]:
    """A run that fails leaves the others alone."""
    options = ["--sweep", *job.sweep] if job.sweep else []
    options += ["--train-only"] if job.train_only else []
    return [
        f"{_srun(job, job.nodes, job.tasks, '--kill-on-bad-exit=0', '--wait=0')} \\",
        f"    python -m util.launch.item {shlex.join([*options, '--', *job.words])}",
    ]


def _one(job: Job) -> list[str]:
    """A process that leaves early takes the others with it, but not before these could save and report 75."""
    lines = [
        f"{_srun(job, job.nodes, job.tasks, '--kill-on-bad-exit=0', f'--wait={PEERS_WAIT_S}')} \\",
        f"    python training.py with {shlex.join(job.words)}",
    ]
    if job.train_only:
        return lines
    lines[-1] += " &&"
    return [*lines, f"    {_srun(job, 1, 1)} \\", f"        python validation.py with {shlex.join(job.words)}"]
