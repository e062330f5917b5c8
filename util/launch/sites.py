"""Cluster-specific settings: one TOML file per site in examples/launch/sites."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from util.errors import ConfigError
from util.schema import build

SITES = Path(__file__).parents[2] / "examples" / "launch" / "sites"


@dataclass(frozen=True)
class Site:
    """A Slurm cluster.

    Strings are shell code: `$VARIABLES` are expanded when the job runs, `{names}` when the script is rendered (see
    `jobs.Job.substitute`).
    """

    title: str
    source: str  # URL of the documentation it is based on
    date: str  # date of that documentation, YYYY-MM-DD
    gpus_per_node: int  # as counted by Slurm: an MI250X is two
    cores_per_task: int  # CPU cores of the process of one GPU, including its DataLoader workers
    time: str  # default time limit of a job, hours:minutes:seconds
    exclusive_nodes: bool = False  # whole nodes are allocated, so that a job should use all their GPUs
    signal_lead_s: int = 300  # seconds before the time limit at which Slurm signals the job to save
    partition: str = ""
    qos: str = ""
    required_options: tuple[str, ...] = ()  # options without a sensible default on this site
    environment: str = "$SLURM_SUBMIT_DIR/.venv"  # folder of the Python environment
    scratch: str = "/tmp"  # folder on the local disk of each node
    sbatch: tuple[str, ...] = ()  # extra sbatch options
    srun: tuple[str, ...] = ()  # extra srun options of the training and validation steps
    modules: tuple[str, ...] = ()  # loaded in this order
    setup: tuple[str, ...] = ()  # commands after loading the modules
    node_setup: tuple[str, ...] = ()  # commands run once on every node
    variables: dict = field(default_factory=dict)  # environment variables
    rendezvous: dict = field(default_factory=dict)  # environment variables of the torch.distributed rendezvous

    def __post_init__(self) -> None:
        for name in ("gpus_per_node", "cores_per_task", "signal_lead_s"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 1 or more.")
        check_time(self.time, self.signal_lead_s, "time=")
        for name, value in (self.variables | self.rendezvous).items():
            if not isinstance(value, str):
                raise ConfigError(f"variable {name}={value!r}: expected a quoted string.")


def check_time(text: str, signal_lead_s: int, where: str) -> None:
    """Checks a time limit.

    Args:
        text: minutes, minutes:seconds, hours:minutes:seconds, or days-hours with any of :minutes:seconds, as for Slurm.
        signal_lead_s: seconds before its end at which a job is told to save.
        where: first part of the message.

    Raises:
        ConfigError: not such a text, or the job would be told to save as soon as it starts.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise ConfigError(f"{where}{text}: expected hours:minutes:seconds or days-hours:minutes:seconds, not negative.")
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    units_s = (3600, 60, 1) if days or len(numbers) == 3 else (60, 1)
    total_s = 86_400 * int(days or 0) + sum(n * unit for n, unit in zip(numbers, units_s, strict=False))
    if total_s <= signal_lead_s:
        raise ConfigError(
            f"{where}{text}: {total_s} s; expected more than the {signal_lead_s} s before its end at which a job saves "
            "and is requeued (signal_lead_s of the site)."
        )


def site_names() -> list[str]:
    """Names of the sites included in the repository."""
    return sorted(path.stem for path in SITES.glob("*.toml"))


def read_site(name: str) -> Site:
    """Reads an included site by name, or a user's .toml file.

    Raises:
        ConfigError: unknown site, invalid TOML, or an unknown, missing or ill-typed key; the message names the file.
    """
    path = Path(name) if name.endswith(".toml") else SITES / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(
            f"site {name!r}: not found. Choose one of {', '.join(site_names())}, or give the path of your own .toml "
            f"file; {SITES / 'nvidia.toml'} is a template."
        )
    try:
        return build(Site, tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error
