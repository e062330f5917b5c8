"""`python -m data.prepare`."""

from data.prepare.scans import main
from util.cli import run_main

if __name__ == "__main__":
    run_main(main)
