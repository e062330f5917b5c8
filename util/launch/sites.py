"""Cluster-specific settings: one TOML file per site in examples/launch/sites."""

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
        for name, value in (self.variables | self.rendezvous).items():
            if not isinstance(value, str):
                raise ConfigError(f"variable {name}={value!r}: expected a quoted string.")


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
