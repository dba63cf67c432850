#!/bin/bash
# Shards on a Slurm cluster: one array task makes the blur of one part of the sources, then a GPU node trains on all of it.
#   sbatch examples/slurm.sh /path/to/films /path/to/data
#SBATCH --job-name=blursynth
#SBATCH --array=0-7
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
set -euo pipefail
films=$1
data=$2
# Each task has a folder of its own: parts can be made, killed and made again apart from each other.
mapfile -t mine < <(find "$films" -name '*.mp4' | sort | awk -v n="${SLURM_ARRAY_TASK_COUNT:-1}" -v i="${SLURM_ARRAY_TASK_ID:-0}" 'NR % n == i')
[ ${#mine[@]} -gt 0 ] || { echo "no film for task ${SLURM_ARRAY_TASK_ID:-0}"; exit 0; }
blursynth make "${mine[@]}" --out "$data/part-${SLURM_ARRAY_TASK_ID:-0}" --workers "${SLURM_CPUS_PER_TASK:-1}"
# Afterwards, on a GPU node, all parts together (an equal share of each):
#   deblur-train fit $(printf -- '--shards %s ' $data/part-*) --config nafnet --out runs/first
