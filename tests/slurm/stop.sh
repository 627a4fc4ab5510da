#!/usr/bin/env bash
# Stop the Slurm of tests/slurm/start.sh by the pids that it recorded.
set -uo pipefail
DIR=${RBF_SLURM_DIR:?folder of the cluster}
export SLURM_CONF=$DIR/slurm.conf
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

if alive "$DIR/run/slurmctld.pid"; then
  mapfile -t jobs < <(timeout 5 squeue -h -o %i 2>/dev/null)
  [ ${#jobs[@]} -eq 0 ] || timeout 5 scancel "${jobs[@]}"
  for _ in $(seq 24); do # KillWait and a little
    [ -z "$(timeout 5 squeue -h -o %i 2>/dev/null)" ] && break
    sleep 0.5
  done
fi
pids=()
for file in "$DIR"/run/slurmd.*.pid "$DIR/run/slurmctld.pid" "$DIR/munge/munged.pid"; do
  [ -s "$file" ] || continue
  pid=$(cat "$file")
  case "$(cat "/proc/$pid/comm" 2>/dev/null)" in # a number may have been given to another process
  slurmd | slurmctld | munged) kill -TERM "$pid" && pids+=("$pid") ;;
  esac
done
for pid in "${pids[@]}"; do
  for _ in $(seq 50); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
done
exit 0
