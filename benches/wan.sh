#!/usr/bin/env bash
# How fast both programs are over an emulated WAN, beside what a user would take instead: several uplinks (A), one
# large file far away (B), loss (C), many small files (D). Prints a table; results are added to a file that
# benches/plot.py draws. Some fifteen minutes, as root; exit code 0 if all targets were met and nothing was void.
#
#   PTF_WAN=.../wan benches/wan.sh [-r A,B,C,D] [-n RUNS] [-s SCALE] [-o RESULTS] [...]      -h shows the flags
#
# PTF_WAN is the program that makes the network: it has `up pair|relays KEY=VALUE...` (hosts src, relay1.., dst),
# `exec HOST COMMAND...`, `set HOST up=RATE`, `status --json` with fields `truthful` and `why`, and `down`. PTF_BIN is
# a folder with other builds than the released ones. TMPDIR should be memory, with room for 8 GiB: a disk may be slower
# than the network. Peers are Debian's packages rsync, openssh-client, openssh-server and rclone; what is not installed
# is skipped, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x "${PTF_WAN:-}" ] || { echo "wan.sh: PTF_WAN must name the program that emulates a network" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "wan.sh: namespaces need root" >&2; exit 2; }
bin=${PTF_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release}
for name in send recv; do
    [ -x "$bin/$name" ] || cargo build --release --locked --bins
done
export WAN_NAME="${WAN_NAME:-ptf$$}"
place=$(mktemp -d)
export XDG_STATE_HOME="$place/home" XDG_CONFIG_HOME="$place/config"
mkdir -p target
bench_pid=''

# The bench ends what it started; this is for what a killed one leaves.
end() {
    [ -z "$bench_pid" ] || kill "$bench_pid" 2>/dev/null && wait "$bench_pid" 2>/dev/null || true
    "$PTF_WAN" down >/dev/null 2>&1 || true
    rm -rf -- "$place"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

python3 benches/wan.py --wan "$PTF_WAN" --bin "$bin" --place "$place" -o target/wan.jsonl "$@" &
bench_pid=$!
code=0
wait "$bench_pid" || code=$?
bench_pid=''
exit "$code"
