"""`python -m models.presets`: lists the published settings."""

from models.presets.noisy import main
from util.cli import run_main

if __name__ == "__main__":
    run_main(main)
