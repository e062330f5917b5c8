#!/usr/bin/env bash
# Provides Slurm for tests/cluster: uses an installed one; otherwise installs the Debian packages (as root), or unpacks
# them into the given folder without installing anything.
#
#     tests/cluster/install_slurm.sh .venv/slurm
set -euo pipefail
folder=${1:?folder to unpack Slurm into}
PATH=$PATH:/usr/sbin:/sbin

is_installed() {
    local program
    for program in slurmctld slurmd munged sbatch srun; do
        command -v "$program" > /dev/null || return 1
    done
}

if is_installed || [[ -x $folder/usr/sbin/slurmctld-wlm ]]; then
    exit 0
fi
if ! command -v apt-get > /dev/null; then
    echo "error: the tests of job scripts need Slurm, which is not installed, and apt-get is not available to download it." >&2
    echo "Install slurmctld, slurmd, the Slurm commands (22.05 or later) and munge, then run this again." >&2
    exit 1
fi
if [[ $(id -u) == 0 ]]; then
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
        slurmctld slurmd slurm-client munge
    exit 0
fi
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
(
    cd "$packages"
    apt-get download slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15 liblua5.1-0
)
mkdir -p "$folder.part"
for package in "$packages"/*.deb; do
    dpkg -x "$package" "$folder.part"
done
rm -rf "$folder"
mv "$folder.part" "$folder"
