#!/usr/bin/env bash
# The topology of docker-compose.yml as processes on this machine: PostgreSQL, coordinators, workers, the API.
#   deploy/local-cluster.sh up coordinators=3 workers=2      start what does not run yet, and wait until it is ready
#   deploy/local-cluster.sh status                           every node: process, restarts, readiness
#   deploy/local-cluster.sh scale workers=4                  start more workers, or drain and end the last ones
#   deploy/local-cluster.sh down                             drain and end all
# A supervisor starts each node again when it crashes or was removed from the cluster (code 4). Settings are name=value; 'up'
# keeps them for the other commands:
#   folder=DIR       pid files, logs, journal, store (default: bbmr-cluster in the current folder; name it with every command)
#   coordinators=N   odd (default: 3, or 1 with journal=sqlite)
#   workers=N        (default: 2)
#   threads=N        processor threads of each worker (default: the cores shared among the workers)
#   journal=TEXT     postgres: a private server in the folder (default); sqlite: for one coordinator; or a connection string
#   port=N           of the first coordinator, the others follow (default: 4053)
#   http=N           of the API on 127.0.0.1 (default: 8080)
#   bbmr=COMMAND     the program (default: bbmr, or what 'dotnet build -c Release src/BbmrCluster.Cli' made)
# All other settings of nodes come from the environment (BBMR_TOKEN_FILE, BBMR_MODELS, BBMR_DRAIN_SECONDS, ...).
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$PWD/bbmr-cluster
fail() { echo "local-cluster: $*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
whole() { [[ ${!1} =~ ^[0-9]+$ ]] || fail "$1=${!1}: not a whole number"; }

# ---- nodes -----------------------------------------------------------------------------------------------------------

# Whether the process of a pid file is that of this node: numbers are given again.
runs() {
  local pid
  pid=$(cat "$folder/$1.pid" 2>/dev/null) && [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF " supervise $folder $1 "
}

roles_of() { case $1 in coordinator-*) echo coordinator ;; worker-*) echo worker ;; *) echo api ;; esac; }

# Names of the nodes that have a supervisor, of one role or all; workers by number.
running() {
  local file name
  for file in "$folder"/"${1:-}"*.pid; do
    name=$(basename "$file" .pid)
    [ -e "$file" ] && [[ $name != *.node ]] && runs "$name" && echo "$name"
  done | sort -V
}

seeds() { local i; for ((i = 0; i < coordinators; i++)); do printf '%s127.0.0.1:%d' "$([ "$i" = 0 ] || echo ,)" $((port + i)); done; }

node_command() {
  local name=$1 role
  role=$(roles_of "$name")
  command=($bbmr node --name "$name" --roles "$role" --host 127.0.0.1 --seed-nodes "$(seeds)" --work "$folder/work-$name" --store "${BBMR_STORE:-$folder/store}")
  case $role in
    coordinator) command+=(--port $((port + ${name#coordinator-} - 1)) --http 127.0.0.1:0) ;;
    worker) command+=(--port 0 --http 127.0.0.1:0 --threads "$threads") ;;
    api) command+=(--port 0 --http "127.0.0.1:$http") ;;
  esac
}

# Runs one node until it ends in order; SIGTERM is passed on. This is a process of its own, without a terminal.
supervise() {
  local name=$1 child=0 stopping=0 code restarts=0 pause=1 began
  trap 'stopping=1; [ "$child" = 0 ] || kill -TERM "$child" 2>/dev/null' TERM
  trap '' INT HUP
  node_command "$name"
  # A connection string may hold a password, which the list of processes would show.
  [ "$(roles_of "$name")" != coordinator ] || export BBMR_JOURNAL=$connection
  while [ "$stopping" = 0 ]; do
    began=$SECONDS
    "${command[@]}" </dev/null >>"$folder/$name.log" 2>&1 &
    child=$!
    echo "$child" >"$folder/$name.node.pid"
    wait "$child"; code=$?
    # A signal ends the wait, not the node.
    while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
    child=0
    [ "$stopping" = 0 ] || break
    if [ "$code" = 0 ] || [ "$code" = 2 ]; then break; fi
    pause=$((SECONDS - began > 20 ? 1 : pause < 15 ? pause * 2 : 15))
    restarts=$((restarts + 1))
    echo "$restarts" >"$folder/$name.restarts"
    echo "local-cluster: $name ended with code $code; it is started again in $pause s" >>"$folder/$name.log"
    sleep "$pause" & wait $!
  done
  rm -f "$folder/$name.pid" "$folder/$name.node.pid" "$folder/$name.restarts"
}

start() {
  runs "$1" && return
  rm -f "$folder/$1.restarts"
  setsid bash "${BASH_SOURCE[0]}" supervise "$folder" "$1" "" </dev/null >/dev/null 2>>"$folder/$1.log" &
  echo $! >"$folder/$1.pid"
}

# SIGTERM to all of them at once, then waits; what does not end in its time is killed.
stop() {
  local name until=$((SECONDS + ${BBMR_DRAIN_SECONDS:-60} + 70))
  for name in "$@"; do kill -TERM "$(cat "$folder/$name.pid")" 2>/dev/null; done
  for name in "$@"; do
    while runs "$name" && [ $SECONDS -lt $until ]; do sleep 0.2; done
    if runs "$name"; then
      echo "local-cluster: $name does not end and is killed" >&2
      kill -KILL "$(cat "$folder/$name.pid")" "$(cat "$folder/$name.node.pid" 2>/dev/null)" 2>/dev/null
      rm -f "$folder/$name.pid" "$folder/$name.node.pid"
    fi
  done
}

# ---- PostgreSQL ------------------------------------------------------------------------------------------------------

as_postgres() { if [ "$(id -u)" -eq 0 ]; then (cd / && exec runuser -u postgres -- "$@"); else "$@"; fi; }

find_postgres() {
  binaries=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$binaries" ] || binaries=$(dirname "$(command -v pg_ctl)" 2>/dev/null)
  [ -x "$binaries/pg_ctl" ] || fail "there is no PostgreSQL here: name one by journal='Host=...;Username=...;Database=...', or take journal=sqlite with one coordinator"
}

# Reached by a socket in the folder alone.
start_postgres() {
  find_postgres
  local data=$folder/postgres
  [ ${#data} -le 85 ] || fail "$data is too long a path for PostgreSQL's socket; name a shorter folder"
  if [ ! -d "$data/db" ]; then
    mkdir -p "$data"
    [ "$(id -u)" -ne 0 ] || chown postgres "$data"
    as_postgres test -w "$data" || fail "the user postgres cannot write to $data; name a folder that it can reach, e.g. folder=/var/tmp/bbmr"
    as_postgres "$binaries/initdb" -D "$data/db" -U bbmr -A trust >"$folder/postgres.log" 2>&1 </dev/null || fail "PostgreSQL's folder could not be made: see $folder/postgres.log"
  fi
  as_postgres "$binaries/pg_ctl" -D "$data/db" status >/dev/null 2>&1 ||
    as_postgres "$binaries/pg_ctl" -D "$data/db" -l "$data/log" -w -o "-c listen_addresses='' -c unix_socket_directories='$data'" start >/dev/null 2>&1 </dev/null ||
    fail "PostgreSQL does not start: see $data/log"
  connection="Host=$data;Username=bbmr;Database=postgres"
}

stop_postgres() {
  [ -d "$folder/postgres/db" ] || return 0
  find_postgres
  as_postgres "$binaries/pg_ctl" -D "$folder/postgres/db" -m fast -w stop >/dev/null 2>&1
}

# ---- commands --------------------------------------------------------------------------------------------------------

# Asks GET /healthz/ready at a port: sets 'code' to the status, empty when nobody answers, and 'members' to what it says of them.
ask_ready() {
  local line="" body=""
  members=""
  code=""
  { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 0
  printf 'GET /healthz/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
  read -r -t 10 line <&3
  body=$(timeout 10 cat <&3)
  members=$(sed -n 's/.*"detail":"\([0-9]* members[^"]*\)".*/\1/p' <<<"$body")
  exec 3<&- 3>&-
  set -- $line
  code=${2:-}
}

count() { echo "$1 $2$([ "$1" = 1 ] || echo s)"; }

# Until the API is ready and every node is a member.
wait_ready() {
  local until=$((SECONDS + 120)) all="$((coordinators + workers + 1)) members"
  while ask_ready "$http"; [ "$code" != 200 ] || [ "$members" != "$all" ]; do
    runs api || fail "the API ended: see $folder/api.log"
    [ $SECONDS -lt $until ] || fail "after 120 s the API is $([ "$code" = 200 ] && echo "ready with $members of $all" || echo "not ready"): see the logs in $folder"
    sleep 0.5
  done
}

up() {
  local i
  find_program
  [ "$journal" != sqlite ] || [ "$coordinators" = 1 ] || fail "journal=sqlite is for one coordinator"
  [ $((coordinators % 2)) = 1 ] || fail "coordinators=$coordinators: take an odd number, so that a majority is there when the cluster is split"
  mkdir -p "$folder" || fail "$folder cannot be made"
  connection=$journal
  [ "$journal" != postgres ] || start_postgres
  save
  for ((i = 1; i <= coordinators; i++)); do start "coordinator-$i"; done
  start api
  scale
  wait_ready
  echo "http://127.0.0.1:$http is ready: $(count "$coordinators" coordinator), $(count "$workers" worker); logs in $folder"
}

scale() {
  local i
  for ((i = 1; i <= workers; i++)); do start "worker-$i"; done
  local more=()
  for name in $(running worker-); do [ "${name#worker-}" -le "$workers" ] || more+=("$name"); done
  [ ${#more[@]} = 0 ] || stop "${more[@]}"
  save
}

status() {
  local name all=0
  for name in $(seq -f 'coordinator-%.0f' "$coordinators") api $(seq -f 'worker-%.0f' "$workers"); do
    if runs "$name"; then
      echo "$name running, process $(cat "$folder/$name.node.pid" 2>/dev/null || echo none), restarts $(cat "$folder/$name.restarts" 2>/dev/null || echo 0)"
    else
      echo "$name stopped"
      all=1
    fi
  done
  ask_ready "$http"
  if [ "$code" = 200 ]; then echo "http://127.0.0.1:$http is ready"; else echo "http://127.0.0.1:$http is not ready"; all=1; fi
  return $all
}

down() {
  # Workers first: they need coordinators to give leases back to. In the end coordinators.
  stop $(running worker-)
  stop $(running api)
  stop $(running coordinator-)
  stop_postgres
}

find_program() {
  [ -z "$bbmr" ] || return 0
  local built=$here/../src/BbmrCluster.Cli/bin/Release/net10.0/bbmr.dll
  if command -v bbmr >/dev/null; then bbmr=bbmr
  elif [ -f "$built" ]; then bbmr="dotnet $(realpath "$built")"
  else fail "there is no bbmr: build it with 'dotnet build -c Release src/BbmrCluster.Cli', or name it by bbmr=COMMAND"
  fi
}

save() { (umask 077 && declare -p coordinators workers threads journal connection port http bbmr >"$folder/settings"); }

verb=${1:-}
[ $# -gt 0 ] && shift
if [ "$verb" = supervise ]; then
  folder=$1
  . "$folder/settings"
  supervise "$2"
  exit
fi
coordinators="" workers="" threads="" journal="" connection="" port="" http="" bbmr=""
for setting in "$@"; do [[ $setting != folder=* ]] || folder=$(realpath -m "${setting#folder=}"); done
[ ! -f "$folder/settings" ] || . "$folder/settings"
for setting in "$@"; do
  case $setting in
    folder=*) ;;
    coordinators=* | workers=* | threads=* | journal=* | port=* | http=* | bbmr=*) printf -v "${setting%%=*}" '%s' "${setting#*=}" ;;
    *) usage ;;
  esac
done
: "${journal:=postgres}" "${workers:=2}" "${port:=4053}" "${http:=8080}"
if [ "$journal" = sqlite ]; then : "${coordinators:=1}"; else : "${coordinators:=3}"; fi
for number in coordinators workers port http; do whole $number; done
cores=$(nproc)
: "${threads:=$((workers > 0 && cores / workers > 0 ? cores / workers : 1))}"
whole threads
case $verb in
  up) up ;;
  status | scale | down)
    [ -f "$folder/settings" ] || fail "there is no cluster in $folder"
    "$verb" ;;
  *) usage ;;
esac
