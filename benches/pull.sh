#!/usr/bin/env bash
# What is fetched beside what a user would fetch it with instead: our pull in TLS and in clear, our push of the
# same, sftp, scp, and lftp over sftp, in turn over loopback, with medians and ratios.
#
#   BENCH=.../bench OURS_SEND=.../send OURS_RECV=.../recv benches/pull.sh [-w L,S] [-n RUNS] [-p PEERS] [...]
#
# BENCH is the folder of the harness: its run.sh runs the peers, measures and judges, and takes the flags; -h shows
# them. The peers here are put beside its own. sshd has a port, keys and a configuration of its own, in the
# harness's folder for this run, and is ended with it. What is not installed is skipped, and that is said.
set -euo pipefail
[ -f "${BENCH:-}/run.sh" ] || { echo "pull.sh: BENCH must be the folder of the harness (run.sh, peers_apt.sh)" >&2; exit 2; }

# Of the harness, where these run: SRC KIND DST PORT T are given, SERVER READY CLIENT OUT are set, 1 is 'skip'.
has() { local name; for name; do command -v "$name" >/dev/null || { echo "$name is not installed" >&2; return 1; }; done; }
ssh_has() { PATH=$PATH:/usr/sbin has sshd ssh-keygen "$@"; }

pull_with() { # further flags of the pull
  local ours=${OURS_RECV:-recv}
  has "$ours" || return 1
  export XDG_STATE_HOME=$T/state XDG_CONFIG_HOME=$T/config # host key and known hosts of this bench alone
  rm -rf "$T/config"                                       # each run has its own port: nothing to remember
  SERVER="exec $ours --addr 127.0.0.1 --port $PORT --ip_ver 4 --root / ${OURS_SERVER_ARGS:-}" READY=$PORT
  CLIENT="$ours --server 127.0.0.1 --port $PORT --file $SRC --local_dir $DST --ip_version 4 $* ${OURS_PULL_ARGS:-}"
  [ "$KIND" = file ] || OUT=$DST # of a folder the contents land in --local_dir itself
}
peer_pull() { pull_with; }
peer_pull_plain() { pull_with --plain; }
peer_pull_sftp() {
  ssh_has sftp || return 1
  ssh_setup
  CLIENT="echo 'get -r $SRC $DST/' | sftp -q -b - -F $T/ssh/config bench"
}
peer_pull_scp() {
  ssh_has scp || return 1
  ssh_setup
  CLIENT="scp -q -r -F $T/ssh/config bench:$SRC $DST/"
}
peer_pull_lftp() { # files in parallel; of one file, parts of it
  ssh_has lftp || return 1
  ssh_setup
  local name set
  name=$(basename "$SRC")
  set="set sftp:connect-program \"ssh -a -x -F $T/ssh/config\"; set xfer:buffer-size 1048576; set sftp:size-read 0x8000;"
  if [ "$KIND" = file ]; then
    CLIENT="lftp -c '$set pget -n 4 sftp://$(id -un):x@bench:$PORT/$SRC -o $DST/$name'"
  else
    CLIENT="lftp -c '$set mirror -P 4 --no-perms sftp://$(id -un):x@bench:$PORT/$SRC $DST/$name'"
  fi
}
# The harness is a shell of its own, which takes functions from its environment.
export -f has ssh_has pull_with peer_pull peer_pull_plain peer_pull_sftp peer_pull_scp peer_pull_lftp

# What is given later counts, so that -w, -p and -n of the caller do.
exec "$BENCH/run.sh" -w L,S -p pull,pull_plain,ours,ours_plain,pull_sftp,pull_scp,pull_lftp "$@"
