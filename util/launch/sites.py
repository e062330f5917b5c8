"""What differs from cluster to cluster, as data: one TOML file per site in examples/launch/sites."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from util.errors import ConfigError
from util.schema import build

SITES = Path(__file__).parents[2] / "examples" / "launch" / "sites"


@dataclass(frozen=True)
class Site:
    """A cluster.

    Texts are shell text: `$VARIABLES` are filled in when the job runs, `{names}` when it is rendered (see
    `jobs.Job.fill`).
    """

    title: str
    source: str  # documentation that this follows
    date: str  # its state, as year-month-day
    gpus_per_node: int  # as Slurm counts them: an MI250X is two
    cores_per_task: int  # of the process that drives one GPU, with those that prepare its batches
    time: str  # default limit of a job, hours:minutes:seconds
    whole_nodes: bool = False  # nodes are given whole, so that a job should fill them
    signal_lead_s: int = 300  # seconds before the limit at which the job is told to save
    partition: str = ""
    qos: str = ""
    ask: tuple[str, ...] = ()  # options that have no sensible default here
    environment: str = "$SLURM_SUBMIT_DIR/.venv"  # folder of the Python environment
    scratch: str = "/tmp"  # folder on each node's own disk
    sbatch: tuple[str, ...] = ()  # further options of the job
    srun: tuple[str, ...] = ()  # and of each step that computes
    modules: tuple[str, ...] = ()  # loaded in this order
    setup: tuple[str, ...] = ()  # commands after the modules
    per_node: tuple[str, ...] = ()  # commands run once on every node
    variables: dict = field(default_factory=dict)
    rendezvous: dict = field(default_factory=dict)  # variables by which the processes of one training meet

    def __post_init__(self) -> None:
        for name in ("gpus_per_node", "cores_per_task", "signal_lead_s"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 1 or more.")
        for name, value in (self.variables | self.rendezvous).items():
            if not isinstance(value, str):
                raise ConfigError(f"variable {name}={value!r}: expected a text in quotation marks.")


def site_names() -> list[str]:
    """The sites that come with the code."""
    return sorted(path.stem for path in SITES.glob("*.toml"))


def read_site(name: str) -> Site:
    """Reads a site by its name, or from a file of one's own.

    Raises:
        ConfigError: no such site, no TOML, or an unknown, missing or ill-typed key; the message names the file.
    """
    path = Path(name) if name.endswith(".toml") else SITES / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(
            f"site {name!r}: not found. Choose one of {', '.join(site_names())}, or name a file of your own that ends "
            f"in .toml; {SITES / 'nvidia.toml'} is one to start from."
        )
    try:
        return build(Site, tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error
