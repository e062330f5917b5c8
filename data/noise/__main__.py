"""`python -m data.noise`."""

from data.noise.masks import main
from util.cli import run_main

if __name__ == "__main__":
    run_main(main)
