#!/usr/bin/env bash
# Start a real Slurm of several nodes on this machine: loopback only, a munge of its own, no systemd.
# Everything lies in $RBF_SLURM_DIR; tests/slurm/stop.sh stops it by the pids recorded there.
# Run as root with Debian's packages munge, slurmctld, slurmd and slurm-client installed.
set -euo pipefail
DIR=${RBF_SLURM_DIR:?folder for the cluster}
NODES=${NODES:-6}
CPUS=${CPUS:-4}         # declared per node, whatever the machine has
PORT=${PORT:-17800}     # slurmctld's; the nodes take the next ones
GRACE=${GRACE:-20}      # seconds between preemption and the end, partition "scavenge"
HOST=$(hostname -s)

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

mkdir -p "$DIR"/{run,log,ctld,munge}
chmod 755 "$DIR" "$DIR"/{run,log,munge}

# A munged of our own: Slurm's daemons and commands find it through AuthInfo.
if ! alive "$DIR/munge/munged.pid"; then
  [ -s "$DIR/munge/key" ] || dd if=/dev/urandom of="$DIR/munge/key" bs=1 count=1024 status=none
  chown -R munge:munge "$DIR/munge"
  chmod 600 "$DIR/munge/key"
  rm -f "$DIR"/munge/sock*
  setpriv --reuid munge --regid munge --clear-groups munged \
    --key-file="$DIR/munge/key" --socket="$DIR/munge/sock" --pid-file="$DIR/munge/munged.pid" \
    --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/munged.seed" --num-threads=2
fi

# proctrack/pgid and not linuxproc: that one leaves pools running whose batch script has ended.
# config_overrides: more CPUs than the machine has. MinJobAge is how long ended jobs can be asked for.
cat >"$DIR/slurm.conf" <<CONF
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
SlurmctldTimeout=30
SlurmdTimeout=${SLURMD_TIMEOUT:-20}
InactiveLimit=0
MinJobAge=60
KillWait=10
Waittime=0
CompleteWait=0
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,bf_resolution=1,bf_window=1440,bf_continue,sched_interval=2,sched_min_interval=0,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + NODES))] CPUs=$CPUS RealMemory=2000 State=UNKNOWN
PartitionName=normal   Nodes=ALL Default=YES MaxTime=1-0 DefaultTime=10 PriorityTier=10 PreemptMode=OFF OverSubscribe=NO State=UP
PartitionName=scavenge Nodes=ALL MaxTime=1-0 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE OverSubscribe=NO State=UP
CONF
export SLURM_CONF=$DIR/slurm.conf
touch "$DIR/log/jobcomp.txt"
chown slurm "$DIR"/{ctld,log,run} "$DIR/log/jobcomp.txt"

alive "$DIR/run/slurmctld.pid" || slurmctld -f "$SLURM_CONF"
for i in $(seq "$NODES"); do
  alive "$DIR/run/slurmd.node$i.pid" && continue
  mkdir -p "$DIR/spool.node$i"
  slurmd -f "$SLURM_CONF" -N "node$i"
done
for _ in $(seq 150); do
  up=$(sinfo -h -N -o '%N %t' -p normal 2>/dev/null | grep -cE ' (idle|mix|alloc)$' || true)
  [ "$up" = "$NODES" ] && exit 0
  sleep 0.1
done
echo "Slurm did not come up:" >&2
tail -n 5 "$DIR"/log/*.log >&2
exit 1
