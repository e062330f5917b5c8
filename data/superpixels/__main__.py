"""`python -m data.superpixels`."""

from data.superpixels.scans import main
from util.cli import run_main

if __name__ == "__main__":
    run_main(main)
