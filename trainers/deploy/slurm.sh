#!/bin/bash
# A distributed run on a Slurm cluster:
#
#   sbatch --ntasks=19 trainers/deploy/slurm.sh cheetah_vel.gin runs/cheetah-vel
#
# 3 tasks are replay server, learner and evaluator, the others actors. The folder must be one that
# the nodes share. The server has no authentication: use a partition whose nodes only you reach.
#SBATCH --job-name=pearl
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
set -euo pipefail

gin_file=$1
root_dir=$2
port=$((20000 + SLURM_JOB_ID % 10000))
server=$(hostname):$port
one=(srun --exact --nodes=1 --ntasks=1)

"${one[@]}" --nodelist="$(hostname)" python -m trainers.replay_server --gin_file="$gin_file" --port="$port" &
replay=$!
"${one[@]}" python -m trainers.learner --gin_file="$gin_file" --root_dir="$root_dir" --server="$server" &
learner=$!
"${one[@]}" python -m trainers.evaluator --gin_file="$gin_file" --root_dir="$root_dir" --server="$server" &
evaluator=$!
export server
srun --exact --ntasks=$((SLURM_NTASKS - 3)) --kill-on-bad-exit=0 \
  bash -c 'exec python -m trainers.actor --server="$server" --actor="$SLURM_PROCID"' &
actors=$!

# Before its time is over Slurm asks this script to end: the learner saves, the job goes on later.
stop() {
  kill -TERM "$actors" "$evaluator" || true
  kill -TERM "$learner"
  wait "$learner" || true
  kill -TERM "$replay"
  scontrol requeue "$SLURM_JOB_ID"
}
trap stop TERM

wait "$learner"
wait "$evaluator"
kill -TERM "$replay"
