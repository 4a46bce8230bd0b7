#!/usr/bin/env bash
# A comparison (or search) on many machines of a SLURM cluster, through one PostgreSQL database.
#
#     export ACTLAB_STORAGE=postgresql+psycopg://actlab@db.example.org/actlab    # the password is in ~/.pgpass
#     sbatch --array=0-19 scripts/slurm_array.sh compare --config configs/thorough.yaml --out "$SCRATCH/thorough"
#
# Every task runs the same command: it claims trials, trains them and goes on until all are done. Tasks may be killed,
# preempted and requeued at any moment: what they were doing comes back to the queue after two minutes. The first task
# that finds everything done writes the results into its --out; the others say so and leave with 0.
# After the loss of all tasks submit again: finished trials are not trained again.
#SBATCH --job-name=actlab
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
# SIGTERM a minute before the end, so that a task gives its trials back at once
#SBATCH --signal=B:TERM@60
#SBATCH --output=actlab-%A_%a.log
set -euo pipefail

: "${ACTLAB_STORAGE:?name the database: export ACTLAB_STORAGE=postgresql+psycopg://user@host/db}"
(($# >= 1)) || { echo "usage: sbatch --array=0-19 $0 compare --config FILE --out DIR" >&2; exit 2; }
command=$1
shift

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# batch scripts get the signal, not their children: hand it on and wait for the worker to save
actlab "$command" "$@" --storage "$ACTLAB_STORAGE" &
worker=$!
trap 'kill -TERM "$worker" 2>/dev/null' TERM INT
code=0
wait "$worker" || code=$?
# a trap ends the first wait early
if kill -0 "$worker" 2>/dev/null; then
    code=0
    wait "$worker" || code=$?
fi
exit "$code"
