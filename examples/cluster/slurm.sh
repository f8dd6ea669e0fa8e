#!/bin/bash
# One net on four machines by SLURM: sbatch slurm.sh experiments/cifar10_small.yaml
# Home folder, runs and this folder are on a file system that all nodes share. docs/cluster.md says what runs where.
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=4
#SBATCH --kill-on-bad-exit=1

# HOST:PORT of every node, in SLURM's own order, which is that of SLURM_PROCID: n9 before n10.
export PORT=$((20000 + SLURM_JOB_ID % 10000))
export WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$PORT\"/" | paste -sd, -)

srun bash -c '
    export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
    exec mimic-keras run "$0" --home "$HOME/mimic_keras_home" \
        --set distribution.strategy=multi_worker --set "distribution.workers=$SLURM_NNODES"
' "$1"
