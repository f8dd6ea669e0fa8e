#!/bin/bash
# A sweep on a Ray cluster of an allocation's nodes: sbatch ray-slurm.sh TABLE.yaml
# Submit it from a folder that all nodes share, with the environment of mimic-keras[ray,plugins] active. After the time limit, submit
# it again: what was finished is reused.
#SBATCH --job-name=mimic-keras
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:6379"
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port=6379 "${resources[@]}" --block &
until ray health-check --address "$address"; do sleep 2; done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$address" "${resources[@]}" --block &
fi

# The driver; Ray takes machines that come later into use, too.
mimic-keras sweep "$1" --home "$PWD/home" --cluster "$address" --gpus_per_task 1
