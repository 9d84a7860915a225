#!/usr/bin/env bash
# Both programs over an emulated WAN: an outage in the middle of a job, loss on a long way, a receiver that
# is started again. Checks the content, the exit code and what was sent twice; below three minutes, as root.
#
# PTF_WAN is the program that makes the network: it has `up pair KEY=VALUE...` (hosts src and dst, sites A
# and B), `exec HOST COMMAND...`, `set A-B state=up|down`, `status --json` with a field `truthful`, and `down`.
# PTF_BIN is a folder with other builds than the released ones.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PTF_WAN:-}" ]; then
    echo "SKIPPED: PTF_WAN names no program that emulates a network"
    exit 0
fi
[ "$(id -u)" = 0 ] || { echo "SKIPPED: that needs root"; exit 0; }
for name in send recv; do
    [ -x "${PTF_BIN:-target/release}/$name" ] || cargo build --release --locked --bins
done
bin=${PTF_BIN:-$PWD/target/release}
export WAN_NAME="${WAN_NAME:-ptf$$}"
place=$(mktemp -d)
export XDG_STATE_HOME="$place/home" XDG_CONFIG_HOME="$place/home"
recv_pid='' send_pid='' failed=0

end() {
    for pid in $send_pid $recv_pid; do kill -9 "$pid" 2>/dev/null || true; done
    "$PTF_WAN" down >/dev/null 2>&1 || true
    rm -rf -- "$place"
}
trap end EXIT

say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*"; failed=1; }

# A number of the last run's object, or of the emulator's.
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1])).get(sys.argv[2]))' "$1" "$2"; }

make_source() {
    mkdir -p "$place/source/few"
    head -c "$1" /dev/urandom >"$place/source/large"
    for index in $(seq 200); do head -c 3000 /dev/urandom >"$place/source/few/$index"; done
    ln -s large "$place/source/link"
    content=$(find "$place/source" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
}

start_recv() {
    : >"$place/recv.out"
    "$PTF_WAN" exec dst "$bin/recv" --port 9000 --addr 0.0.0.0 --allow 0.0.0.0/0 --root "$place/root" \
        --state_dir "$place/state" >"$place/recv.out" 2>>"$place/recv.err" &
    recv_pid=$!
    until grep -qs listening "$place/recv.out"; do
        kill -0 "$recv_pid" || { cat "$place/recv.err"; exit 1; }
        sleep 0.05
    done
}

stop_recv() {
    kill -9 "$recv_pid" && wait "$recv_pid" 2>/dev/null || true
    recv_pid=''
}

start_send() {
    "$PTF_WAN" exec src "$bin/send" --server dst --port 9000 --file "$place/source" --remote_dir in --length 1M \
        --json "$@" >"$place/send.json" 2>"$place/send.err" &
    send_pid=$!
}

# Waits until so many bytes of the large file are noted in its journal: 16 for each block of 64 KiB.
wait_for() {
    until [ "$(find "$place/root" -name '.ptf-*j' -printf '%s\n' 2>/dev/null | head -n 1)0" -gt "$(($1 / 4096 * 10))" ]; do
        kill -0 "$send_pid" 2>/dev/null || { cat "$place/send.err"; fail "the job ended too early"; return; }
        sleep 0.05
    done
}

# Sees a run end, and all be there.
expect() {
    local name=$1 repeated_max=$2 code=0
    wait "$send_pid" || code=$?
    send_pid=''
    [ "$code" = 0 ] || { cat "$place/send.err"; fail "$name: send ended with $code"; return; }
    diff -r --no-dereference "$place/source" "$place/root/in" || fail "$name: the trees differ"
    [ -z "$(find "$place/root" -name '.ptf-*j')" ] || fail "$name: a journal is left"
    local repeated resumed
    repeated=$(field "$place/send.json" repeated_bytes) resumed=$(field "$place/send.json" resumed_bytes)
    [ "$repeated" -le "$repeated_max" ] || fail "$name: $repeated bytes were sent again"
    "$PTF_WAN" status --json >"$place/status.json"
    local truthful
    truthful=$(field "$place/status.json" truthful)
    [ "$truthful" = True ] || fail "$name: the emulator could not keep up, it says nothing"
    say "$name: $(field "$place/send.json" seconds) s, $content bytes, $repeated sent again, $resumed resumed," \
        "$(field "$place/send.json" lost_connections) connections lost, truthful: $truthful"
}

begin() {
    rm -rf -- "$place/source" "$place/root"
    mkdir -p "$place/root"
    make_source "$1"
    shift
    "$PTF_WAN" up pair "$@" >/dev/null
    start_recv
}

finish() {
    stop_recv
    "$PTF_WAN" down >/dev/null
}

# With these flags eight connections hold what their sockets hold, 4 MiB at the most, and a chunk before
# and behind that: as much is given back when all break. What of it had arrived is not sent again.
workers=(--process_num 2 --thread_num 4)
unconfirmed=$((8 * (4 + 2) * 1048576))

begin 120000000 rtt=50ms rate=100mbit
start_send "${workers[@]}" --stall_timeout 20s
wait_for 40000000
"$PTF_WAN" set A-B state=down
sleep 30
"$PTF_WAN" set A-B state=up
expect "30 s outage in both directions" "$unconfirmed"
finish

begin 60000000 rtt=100ms rate=100mbit loss=1%
start_send "${workers[@]}"
expect "loss of 1 %, 100 ms" "$unconfirmed"
congestion=$(field "$place/send.json" congestion)
if ! grep -qw bbr /proc/sys/net/ipv4/tcp_available_congestion_control; then
    say "SKIPPED: this kernel has no bbr for a lossy path"
elif [ "$congestion" != bbr ]; then
    fail "$congestion was used on a lossy path"
fi
finish

begin 60000000 rtt=50ms rate=100mbit
start_send "${workers[@]}"
wait_for 20000000
stop_recv
start_recv
expect "a receiver that was killed and started again" "$unconfirmed"
# In `resumed_bytes` is what was there before this run; the receiver tells what came since its restart.
written=$(sed -n 's/.*a job has ended: .* \([0-9]*\) bytes written.*/\1/p' "$place/recv.err" | tail -n 1)
say "after it $written bytes were written"
[ "${written:-$content}" -le "$((content - 10000000))" ] || fail "nothing was gone on with"
finish

exit "$failed"
