#!/usr/bin/env python3
"""Rows of measurements over an emulated network, ours beside what a user would take instead. Run by benches/wan.sh,
which says what it needs.

Each run has a network of its own and a new target; what arrived is compared byte for byte. A run in which the network
was not what it was to be is void, and is done again. Times are from the start of a process to its end.
"""
import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

from wan_lab import Failed, Lab, wait_for_quiet
from wan_peers import PEERS, Job, missing

PORT, RELAY_PORT = 9000, 9001
RELAYS = 3
LIMIT_SECONDS = 300  # for one run
MEGABIT = 1e6 / 8
MIB = 1024 * 1024

# Row A: the rate of a link is that of Ethernet frames; TCP's payload is at most 95.6 % of it.
UPLINK_BYTES = 300_000_000  # 25 s of 100 Mbit/s
UPLINK = ["rtt=100ms", "rate=1gbit", "up=100mbit", "down=100mbit"]
SLOW_SHARE = 0.2

FILES, FILES_FEW, FILES_FEWER = 1000, 100, 10


class Bench:
    def __init__(self, args):
        self.args = args
        self.place = args.place
        self.lab = Lab(args.wan, args.place, args.network.split())
        self.records = []
        self.uplinks = {}
        helps = {name: subprocess.run([self.program(name), "--help"], text=True, capture_output=True).stdout for name in ("send", "recv")}
        self.has_relays = "--via" in helps["send"] and "--relay_to" in helps["recv"]

    def path(self, *names):
        return os.path.join(self.place, *names)

    def program(self, name):
        return os.path.join(self.args.bin, name)

    # What is sent

    def make_file(self, size):
        """A file that is like no other part of itself, and costs no time to make."""
        size, path = max(1, int(size * self.args.scale)), self.path("source")
        block = os.urandom(MIB - 8)
        with open(path, "wb") as file:
            for number in range(-(-size // MIB)):
                file.write(number.to_bytes(8, "big") + block)
            file.truncate(size)
        return path, size

    def make_tree(self, count):
        path = self.path("source")
        os.makedirs(path)
        for number in range(count):
            with open(os.path.join(path, f"file{number}"), "wb") as file:
                file.write(os.urandom(1024))
        return path, count * 1024

    @contextlib.contextmanager
    def source(self, made):
        try:
            yield made
        finally:
            remove(self.path("source"))

    # One run

    def run(self, network, runner, source):
        """As `runner` says how, in a network of its own; again where that was not what it was to be."""
        doubts = []
        for _ in range(self.args.tries):
            for name in ("out", "state", "config"):
                remove(self.path(name))
            wait_for_quiet(self.args.quiet)
            with self.lab.network(*network):
                ran, landed, facts = runner()
                doubts, facts["queues"] = self.lab.status()
            if ran.code:
                raise Failed(f"ended with {ran.code}: {(ran.err.strip().splitlines() or ['no word'])[-1]}")
            compare = ["cmp", "-s"] if os.path.isfile(source) else ["diff", "-rq"]
            if subprocess.run([*compare, source, landed], capture_output=True).returncode:
                raise Failed("what arrived is not what was sent")
            remove(self.path("out"))
            if not doubts:
                break
            self.say(f"  void, {ran.seconds:.2f} s: {'; '.join(doubts)}")
        return ran, facts, doubts

    def start_recv(self, root):
        os.makedirs(root, exist_ok=True)
        self.lab.start("dst", self.recv_command(PORT, "state/dst", "--root", root), PORT)

    def recv_command(self, port, state, *flags):
        return [self.program("recv"), "--port", str(port), "--addr", "0.0.0.0", "--state_dir", self.path(state), "--quiet", *flags]

    def start_relays(self):
        """A relay on each host that has an uplink to lend; gives the flag that leads through them, and the processes."""
        os.makedirs(self.path("state"), exist_ok=True)
        names = [f"relay{number + 1}" for number in range(RELAYS)]
        to = ["--relay_to", f"dst:{PORT}", "--relay_only"]
        relays = [self.lab.start(name, self.recv_command(RELAY_PORT, f"state/{name}", *to), RELAY_PORT) for name in names]
        return ["--via", ",".join(f"{name}:{RELAY_PORT}" for name in names)], relays

    def ours(self, source, flags=(), is_pull=False, via=False, slow=False, kill_after=None):
        """How our programs move `source`; `kill_after` so many seconds one relay is killed."""

        def runner():
            if is_pull:
                self.start_recv(os.path.dirname(source))
                words = ["recv", "--file", os.path.basename(source), "--local_dir", self.path("out")]
                landed = self.path("out", os.path.basename(source))
            else:
                self.start_recv(self.path("out"))
                words = ["send", "--file", source, "--remote_dir", "in"]
                landed = self.path("out", "in", os.path.basename(source) if os.path.isfile(source) else "")
            command = [self.program(words[0]), *words[1:], "--server", "dst", "--port", str(PORT), "--json", *flags]
            command += [] if is_pull else self.args.send_flags.split()
            act, killed = None, []
            if via:
                route_flags, relays = self.start_relays()
                command += route_flags
                if slow:
                    rate = f"{100 * SLOW_SHARE:g}mbit"
                    self.lab.call("set", f"relay{RELAYS}", f"up={rate}", f"down={rate}")

                def kill_one():
                    os.killpg(relays[-1].pid, signal.SIGKILL)
                    killed.append(time.monotonic())

                act = (kill_after, kill_one) if kill_after else None
            ran = self.lab.run("src", command, LIMIT_SECONDS, act)
            if act and not killed:
                raise Failed("the run was over before the relay was to be killed")
            facts = {"killed": killed[0] - ran.begun} if killed else {}
            with contextlib.suppress(ValueError):
                said = json.loads(ran.out)
                keys = ["routes", "connections", "lost_connections", "processes", "repeated_bytes", "limited_by"]
                facts |= {key: said[key] for key in keys if key in said}
            return ran, landed, facts

        return runner

    def peer(self, name, source):
        def runner():
            job = Job(self.place, source, self.path("out"))
            plan = PEERS[name][2](job)
            for server in plan.servers:
                self.lab.start(*server)
            ran = self.lab.run(plan.host, plan.command, LIMIT_SECONDS)
            landed = os.path.join(job.target, os.path.basename(source)) if job.is_file else job.target
            return ran, landed, {"note": plan.note} if plan.note else {}

        return runner

    # Rows

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def measure(self, row, name, label, network, runner, made, value, unit, target=None, at_most=False, who="ours", **more):
        """Runs a row as often as was asked for, and notes its median. `value` is of a run and its facts."""
        self.say(f"{row} {label} ...")
        source, size = made
        record = {"row": row, "name": name, "label": label, "who": who, "bytes": size, "unit": unit, "target": target, "at_most": at_most, **more}
        values, seconds, doubts = [], [], []
        try:
            for _ in range(self.args.runs):
                ran, facts, doubts_here = self.run(network, runner, source)
                values.append(value(ran, facts))
                seconds.append(ran.seconds)
                doubts += doubts_here
                notes = [text for text in (record.get("note"), facts.pop("note", None)) if text]
                record.update(facts)
                if notes:
                    record["note"] = ", ".join(dict.fromkeys(notes))
            record["seconds"] = statistics.median(seconds)
            record["all_seconds"] = seconds
            record["value"] = statistics.median(values)
            record["rate_mbit"] = size / record["seconds"] / MEGABIT
        except (Failed, subprocess.SubprocessError, OSError) as error:
            record["error"] = str(error)
        self.note(record, doubts)
        return record

    def note(self, record, doubts=()):
        record["truthful"], record["doubts"] = not doubts, list(doubts)
        target, value = record.get("target"), record.get("value")
        if target is not None:
            is_met = value is not None and (value < target if record["at_most"] else value >= target)
            record["met"] = is_met and not doubts
        self.records.append(record)
        with open(self.args.output, "a") as file:
            file.write(json.dumps(record) + "\n")
        self.say(f"  {record.get('error') or describe(record)}{' VOID' if doubts else ''}")

    def row_a(self):
        network = ["relays", f"n={RELAYS}", *UPLINK]
        number = RELAYS + 1
        share = number - 1 + SLOW_SHARE
        of_sum = lambda ran, facts, rate, size: size / ran.seconds / (rate * share)

        def of_what_is_left(ran, facts, rate, size):
            before = facts["killed"]
            return size / rate / (number * before + (number - 1) * (ran.seconds - before))

        # An uplink, as measured, is what the others are held against.
        for first, way, act in [(1, "push", ""), (5, "pull", "fetched: ")]:
            self.with_uplink(f"A{first}", way, f"{act}one uplink", network, {}, 1, lambda ran, facts, rate, size: 1.0, "x one uplink")
            for row, label, how, uplinks, value, unit, target in [
                (first + 1, f"{act}its own and {RELAYS} relays", {}, number, times_uplink, "x one uplink", 3.8),
                (first + 2, f"{act}one relay at 20 Mbit/s", {"slow": True}, share, of_sum, "of the uplinks' sum", 0.95),
                (first + 3, f"{act}one relay killed half-way", {"kill": True}, number, of_what_is_left, "of the uplinks left", 0.9),
            ]:
                self.with_uplink(f"A{row}", way, label, network, {"via": True, **how}, uplinks, value, unit, target)

    def with_uplink(self, row, way, label, network, how, uplinks, value, unit, target=None):
        """One of row A; `uplinks` is how much faster than one it may be at the most."""
        rate = self.uplinks.get(way)
        why = None
        if how.get("via") and not self.has_relays:
            why = "not run: these programs have no --via and --relay_to"
        elif how.get("via") and not rate:
            why = "not run: there is no uplink to hold it against"
        if why:
            self.note({"row": row, "name": way, "label": label, "who": "ours", "unit": unit, "target": target, "at_most": False, "error": why})
            return
        with self.source(self.make_file(UPLINK_BYTES * uplinks)) as made:
            kill_after = made[1] / (rate * uplinks) / 2 if how.pop("kill", False) else None
            runner = self.ours(made[0], is_pull=way == "pull", kill_after=kill_after, **how)
            of_run = lambda ran, facts: value(ran, facts, rate, made[1])
            record = self.measure(row, way, label, network, runner, made, of_run, unit, target, uplinks=uplinks)
        if not how and "seconds" in record:
            self.uplinks[way] = made[1] / record["seconds"]

    def row_of_link(self, row, network, link_mbit, rows, peers_size, peers):
        """Rates of one file against that of the link."""

        def value(ran, facts, size):
            return size / ran.seconds / (link_mbit * MEGABIT)

        for name, label, flags, size, target in rows:
            with self.source(self.make_file(size)) as made:
                of_run = lambda ran, facts: value(ran, facts, made[1])
                self.measure(row, name, label, network, self.ours(made[0], flags), made, of_run, "of the link", target, link_mbit=link_mbit)
        with self.source(self.make_file(peers_size)) as made:
            of_run = lambda ran, facts: value(ran, facts, made[1])
            for name in self.peers(row, peers):
                label = PEERS[name][0]
                runner = self.peer(name, made[0])
                self.measure(row, name, label, network, runner, made, of_run, "of the link", who="peer", link_mbit=link_mbit)

    def row_b(self):
        network = ["pair", "rtt=93ms", "rate=1gbit"]
        rows = [("send", "send to recv (TLS)", [], 4096 * MIB, 0.92)]
        # A GiB is some 40 s for them: their start is 2 % of it.
        self.row_of_link("B", network, 1000, rows, 1024 * MIB, ["rclone", "rsync_daemon", "rsync_ssh", "scp"])

    def row_c(self):
        network = ["pair", "rtt=50ms", "rate=200mbit", "loss=0.1%"]
        rows = [
            ("send", "send to recv (TLS)", [], 512 * MIB, 0.85),
            ("send_cubic", "send --congestion cubic", ["--congestion", "cubic"], 256 * MIB, None),
        ]
        self.row_of_link("C", network, 200, rows, 256 * MIB, ["rclone", "rsync_daemon", "rsync_ssh", "scp"])

    def row_d(self):
        rtt = 0.2
        network = ["pair", "rtt=200ms", "rate=1gbit"]
        in_trips = lambda ran, facts: ran.seconds / rtt
        with self.source(self.make_tree(FILES)) as made:
            for name, label, flags, target in [
                ("send", "send to recv (TLS)", [], 10),
                ("send_plain", "send --plain", ["--plain"], None),
            ]:
                runner = self.ours(made[0], flags)
                self.measure("D", name, label, network, runner, made, in_trips, "round trips", target, at_most=True, files=FILES)
            for name in self.peers("D", ["rsync_daemon", "rsync_ssh"]):
                runner = self.peer(name, made[0])
                self.measure("D", name, PEERS[name][0], network, runner, made, in_trips, "round trips", who="peer", files=FILES)
        # They take minutes for a thousand, the same time for each: what ten and a hundred take tells how long.
        for name in self.peers("D", ["rclone", "scp"]):
            taken = {}
            for count in (FILES_FEWER, FILES_FEW):
                with self.source(self.make_tree(count)) as made:
                    def value(ran, facts, count=count):
                        taken.setdefault(count, []).append(ran.seconds)
                        if count == FILES_FEWER:
                            return ran.seconds / rtt
                        fewer, few = (statistics.median(taken[count]) for count in (FILES_FEWER, FILES_FEW))
                        return (few + (few - fewer) / (FILES_FEW - FILES_FEWER) * (FILES - FILES_FEW)) / rtt

                    is_last = count == FILES_FEW
                    note = f"reckoned from {FILES_FEWER} and {FILES_FEW} files" if is_last else f"{FILES_FEWER} files"
                    self.measure(
                        "D", name if is_last else f"{name}_fewer", PEERS[name][0], network, self.peer(name, made[0]), made, value,
                        "round trips", who="peer", files=count, note=note, is_reckoned=is_last,
                    )
                if not taken.get(count):
                    break

    def peers(self, row, names):
        for name in names:
            program = missing(PEERS[name][1])
            if self.args.no_peers or program:
                if program:
                    self.say(f"{row} SKIPPED {PEERS[name][0]}: {program} is not installed")
                continue
            yield name


def times_uplink(ran, facts, rate, size):
    return size / ran.seconds / rate


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def describe(record):
    value, unit = record["value"], record["unit"]
    if unit == "round trips":
        return f"{'about ' if record.get('is_reckoned') else ''}{value:.{0 if value >= 100 else 1}f} {unit}"
    return f"{value:.2f} {unit}" if unit.startswith("x") else f"{value * 100:.1f} % {unit}"


def describe_routes(record):
    routes = record.get("routes") or []
    return "; ".join(f"{route['route']} {route['bytes'] / 1e6:.0f} MB" for route in routes)


def table(records):
    """The records as Markdown."""
    lines = ["| | | sent | seconds | Mbit/s | | target | |", "|---|---|--:|--:|--:|--:|--:|---|"]
    for record in records:
        if record["name"].endswith("_fewer"):
            continue
        target = record.get("target")
        sign = "<" if record["at_most"] else ">="
        aim = "" if target is None else f"{sign} {target if record['unit'][0] in 'xr' else f'{target * 100:g} %'}"
        if "error" in record:
            cells = ["", "", "", record["error"]]
        else:
            files = record.get("files")
            sent = f"{files} files" if files else f"{record['bytes'] / 1e6:.0f} MB"
            rate = "" if files else f"{record['rate_mbit']:.0f}"
            cells = [sent, f"{record['seconds']:.2f}", rate, describe(record)]
        notes = [record.get("note"), describe_routes(record)]
        notes.append({True: "met", False: "MISSED"}.get(record.get("met")))
        notes.append(None if record["truthful"] else f"VOID: {'; '.join(record['doubts'])}")
        cells = [record["row"], record["label"], *cells, aim, ", ".join(note for note in notes if note)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_text(path):
    with contextlib.suppress(OSError), open(path) as file:
        return file.read().strip()
    return ""


def conditions(args):
    """When, where and with what: figures say nothing without."""
    first_line = lambda *words: (subprocess.run(words, text=True, capture_output=True).stdout.splitlines() or [""])[0]
    model = [line.partition(":")[2].strip() for line in read_text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    kept = lambda name: " ".join(read_text(f"/proc/sys/net/ipv4/{name}").split())
    versions = {"rsync": ["rsync", "--version"], "rclone": ["rclone", "version"]}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {model[0] if model else platform.machine()}",
        "kernel": platform.release().split("-")[0],
        "congestion": kept("tcp_congestion_control"),
        "tcp_wmem": kept("tcp_wmem"),
        "tcp_rmem": kept("tcp_rmem"),
        "network": args.network,
        "send_flags": args.send_flags,
        "scale": args.scale,
        "runs": args.runs,
        "versions": {name: first_line(*words) for name, words in versions.items() if shutil.which(name)},
    }


def main():
    parser = argparse.ArgumentParser(prog="wan.sh", description="Measures over an emulated network.")
    parser.add_argument("-r", dest="rows", default="A,B,C,D", help="which rows [A,B,C,D]")
    parser.add_argument("-n", dest="runs", type=int, default=1, help="runs of each, of which the median counts [1]")
    parser.add_argument("-t", dest="tries", type=int, default=3, help="how often a run is tried that turns out to be void [3]")
    parser.add_argument("-s", dest="scale", type=float, default=1.0, help="of the size of files, such as 0.1 for a quick try [1]")
    parser.add_argument("-o", dest="output", help="where results are added, a JSON object a line [target/wan.jsonl]")
    parser.add_argument("-p", dest="no_peers", action="store_true", help="leave other programs out")
    parser.add_argument("-q", dest="quiet", type=float, default=60, help="seconds to wait for the machine to be idle before a run [60]")
    parser.add_argument("-f", dest="send_flags", default="", help="further flags of send: -f'--plain'")
    parser.add_argument("-w", dest="network", default="", help="further words for each network, such as cc=cubic")
    for name in ("wan", "bin", "place"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    bench = Bench(args)
    rows = [row.strip().upper() for row in args.rows.split(",")]
    known = {"A": bench.row_a, "B": bench.row_b, "C": bench.row_c, "D": bench.row_d}
    for row in rows:
        if row not in known:
            parser.error(f"there is no row {row}: there are {', '.join(known)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with open(args.output, "a") as file:
        file.write(json.dumps({"conditions": conditions(args)}) + "\n")
    for row in rows:
        known[row]()
    print(table(bench.records))
    aimed = [record for record in bench.records if record.get("target") is not None]
    is_good = all(record["met"] for record in aimed) and all(record["truthful"] for record in bench.records)
    print(f"\n{sum(record['met'] for record in aimed)} of {len(aimed)} targets met")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
