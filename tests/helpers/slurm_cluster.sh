#!/usr/bin/env bash
# A real Slurm on this machine for tests: munged, slurmctld and several slurmd, all their files in one folder.
#
#   bash tests/helpers/slurm_cluster.sh start FOLDER [NODES]   then: export SLURM_CONF=FOLDER/slurm.conf  (default 2 nodes)
#   bash tests/helpers/slurm_cluster.sh stop FOLDER
#
# Needs Debian's slurmctld, slurmd, slurm-client and munge. Its ports are free ones: several can run, and beside a real
# one too. Jobs are tracked by cgroups, as on real clusters, where this machine has version 1 of them; else by /proc,
# where SIGTERM reaches every process of a job instead of its first one.
set -euo pipefail

usage() {
  echo "usage: bash tests/helpers/slurm_cluster.sh start|stop FOLDER [NODES]" >&2
  exit 2
}

start() {
  local nodes=$1 program
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" > /dev/null || {
      echo "error: $program is missing: apt-get install slurmctld slurmd slurm-client munge" >&2
      exit 2
    }
  done
  # munged refuses folders that others could change; its socket must be reachable, its key must not be readable.
  install -d -m 755 "$folder" "$folder/munge" "$folder/state" "$folder/log"
  (umask 077 && head -c 128 /dev/urandom > "$folder/munge/key")
  local -a port
  mapfile -t port < <(python3 - $((nodes + 1)) <<- 'PYTHON'
		import socket, sys
		held = [socket.socket() for _ in range(int(sys.argv[1]))]
		for one in held:
		    one.bind(("", 0))
		print("\n".join(str(one.getsockname()[1]) for one in held))
	PYTHON
  )
  local user tracking=linuxproc
  user=$(id -un)
  if [[ -w /sys/fs/cgroup/freezer ]]; then
    tracking=cgroup
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupAutomount=no > "$folder/cgroup.conf"
  fi
  {
    cat <<- CONF
		ClusterName=paec
		SlurmctldHost=$(hostname -s)(127.0.0.1)
		SlurmctldPort=${port[0]}
		SlurmUser=$user
		SlurmdUser=$user
		AuthType=auth/munge
		# A requeued job waits as long as its old credential is valid.
		AuthInfo=socket=$folder/munge/socket,cred_expire=5
		ProctrackType=proctrack/$tracking
		TaskPlugin=task/none
		SelectType=select/cons_tres
		MpiDefault=none
		PreemptType=preempt/partition_prio
		PreemptMode=REQUEUE
		ReturnToService=2
		PropagateResourceLimits=NONE
		StateSaveLocation=$folder/state
		SlurmdSpoolDir=$folder/spool-%n
		SlurmctldPidFile=$folder/slurmctld.pid
		SlurmdPidFile=$folder/slurmd-%n.pid
		SlurmctldLogFile=$folder/log/slurmctld
		SlurmdLogFile=$folder/log/slurmd-%n
		# More CPUs than the machine may have: the nodes share it.
		SlurmdParameters=config_overrides
	CONF
    for ((i = 1; i <= nodes; i++)); do
      echo "NodeName=n$i NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=${port[i]} CPUs=16 RealMemory=1000"
    done
    echo "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1"
    echo "PartitionName=grace Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60"
    echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2"
  } > "$folder/slurm.conf"
  export SLURM_CONF=$folder/slurm.conf
  munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  slurmctld
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$folder/spool-n$i"
    slurmd -N "n$i"
  done
  for _ in $(seq 60); do
    if [[ $(sinfo --noheader --Node --states=idle --format=%N 2> /dev/null | sort -u | wc -l) == "$nodes" ]]; then
      return
    fi
    sleep 0.5
  done
  tail -n 20 "$folder"/log/* >&2
  echo "error: not all $nodes nodes came up within 30 s (above: their logs)" >&2
  stop
  exit 1
}

# Jobs first, so that their own cleaning runs; then the daemons, by the ids they wrote.
stop() {
  export SLURM_CONF=$folder/slurm.conf
  timeout 10 scancel --user="$(id -un)" --quiet || true
  for _ in $(seq 80); do
    [[ -n $(timeout 10 squeue --noheader 2> /dev/null) ]] || break
    sleep 0.5
  done
  local file pid
  for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid" "$folder/munge/pid"; do
    [[ -s $file ]] || continue
    pid=$(< "$file")
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 20); do
      kill -0 "$pid" 2> /dev/null || continue 2
      sleep 0.5
    done
    kill -KILL "$pid" 2> /dev/null || true
  done
}

(($# >= 2)) || usage
mkdir -p "$2"
folder=$(cd "$2" && pwd)
case $1 in
  start) start "${3:-2}" ;;
  stop) stop ;;
  *) usage ;;
esac
