#!/usr/bin/env bash
# A real Slurm of one-processor nodes, faster than real time: benchmarks/slurm_agreement.py runs this
# under faketime. Says "up", waits for the end of its input, then stops what it started, by pid.
set -uo pipefail
DIR=${RBF_SLURM_DIR:?folder for the cluster}
NODES=${NODES:-100}
PORT=${PORT:-18800} # slurmctld's; the nodes take the next ones
HOST=$(hostname -s)
export SLURM_CONF=$DIR/slurm.conf

pause() { env -u LD_PRELOAD sleep 0.1; } # of real time

stop() {
  squeue -h -o %i | xargs -r scancel
  for _ in $(seq 50); do
    [ -z "$(squeue -h -o %i)" ] && break
    pause
  done
  pids=()
  for file in "$DIR"/run/slurmd.*.pid "$DIR/run/slurmctld.pid" "$DIR/munge/munged.pid"; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    case "$(cat "/proc/$pid/comm" 2>/dev/null)" in
    slurmd | slurmctld | munged) kill -TERM "$pid" && pids+=("$pid") ;;
    esac
  done
  for pid in "${pids[@]}"; do
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      pause
    done
    kill -KILL "$pid" 2>/dev/null
  done
}

mkdir -p "$DIR"/{run,log,ctld,munge}
chmod 755 "$DIR" "$DIR"/{run,log,munge}
dd if=/dev/urandom of="$DIR/munge/key" bs=1 count=1024 status=none
touch "$DIR/log/jobcomp.txt"
chown -R munge:munge "$DIR/munge"
chown slurm "$DIR"/{ctld,log,run} "$DIR/log/jobcomp.txt"
chmod 600 "$DIR/munge/key"

# Time-outs are long: a hundred seconds here are one. bf_window: beyond the longest request (minutes).
cat >"$SLURM_CONF" <<CONF
ClusterName=rbf
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/sock
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$DIR/ctld
SlurmdSpoolDir=$DIR/spool.%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
ReturnToService=2
SlurmdParameters=config_overrides
LaunchParameters=enable_nss_slurm
SlurmctldTimeout=3600
SlurmdTimeout=3600
MessageTimeout=100
TCPTimeout=100
BatchStartTimeout=1000
UnkillableStepTimeout=6000
InactiveLimit=0
MinJobAge=300
KillWait=5
Waittime=0
CompleteWait=0
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=${BF_INTERVAL:-30},bf_resolution=1,bf_window=7200,bf_continue,bf_max_time=3000,bf_max_job_test=1000,sched_interval=${BF_INTERVAL:-30},sched_min_interval=0,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PriorityType=priority/basic
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + NODES))] CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=normal Nodes=ALL Default=YES MaxTime=UNLIMITED DefaultTime=10 OverSubscribe=NO State=UP
CONF

trap stop EXIT
setpriv --reuid munge --regid munge --clear-groups munged \
  --key-file="$DIR/munge/key" --socket="$DIR/munge/sock" --pid-file="$DIR/munge/munged.pid" \
  --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/munged.seed" --num-threads=2
slurmctld -f "$SLURM_CONF"
for i in $(seq "$NODES"); do
  mkdir -p "$DIR/spool.node$i"
  slurmd -f "$SLURM_CONF" -N "node$i"
done
for _ in $(seq 300); do
  n=$(sinfo -h -N -o '%N %t' 2>/dev/null | grep -c ' idle$')
  [ "$n" = "$NODES" ] && break
  pause
done
if [ "$n" != "$NODES" ]; then
  echo "Slurm did not come up: $n of $NODES nodes"
  exit 1
fi
for name in LD_PRELOAD FAKETIME FAKETIME_SHARED SLURM_CONF; do
  echo "$name=${!name:-}"
done
echo up
cat >/dev/null
