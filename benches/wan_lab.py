"""An emulated network with programs on its hosts: brought up, listened for, timed, and taken down again.

The network is made by the program that the variable PTF_WAN names; see benches/wan.sh. Nothing here knows what
is measured.
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

READY_SECONDS = 15  # for a server to listen
END_SECONDS = 5  # for a process to be gone that was killed

QUIET_SHARE = 0.2  # of all cores' time

# Times a command from its start to its end on the host itself: getting there takes a tenth of a second.
CLOCK = """
import json, subprocess, sys, time
begun = time.monotonic()
code = subprocess.call(sys.argv[2:])
json.dump({"begun": begun, "ended": time.monotonic(), "code": code}, open(sys.argv[1], "w"))
"""

# Takes what time nobody else wants, until its parent is gone. The host of a virtual machine gives away a processor that
# has nothing to do, and brings it back milliseconds after the emulator wanted to send a packet. A session is a group
# of its own for the scheduler, whose weight is lowered, too.
AWAKE = """
import contextlib, os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
    group.write("19")
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


class Failed(Exception):
    """A run that says nothing: what was wrong."""


@dataclass
class Ran:
    """One run of a command: times in seconds, of the clock that all processes share."""

    begun: float
    ended: float
    code: int
    out: str
    err: str

    @property
    def seconds(self):
        return self.ended - self.begun


@dataclass
class Lab:
    wan: str
    place: str
    extra: list = field(default_factory=list)  # further words for each network
    processes: list = field(default_factory=list)

    def call(self, *words, check=True):
        done = subprocess.run([self.wan, *words], text=True, capture_output=True, timeout=60)
        if check and done.returncode:
            raise Failed(f"{os.path.basename(self.wan)} {' '.join(words)}: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    @contextlib.contextmanager
    def network(self, *words):
        """A network for as long as this is used; all that was started in it ends before it does. Meanwhile no processor
        is idle."""
        self.call("up", *words, *self.extra)
        try:
            for _ in range(os.cpu_count()):
                self.processes.append(subprocess.Popen([sys.executable, "-c", AWAKE], stdin=subprocess.DEVNULL, start_new_session=True))
            yield
        finally:
            for process in self.processes:
                kill(process)
            self.processes.clear()
            self.call("down", check=False)

    def start(self, host, command, port):
        """A server, once it listens on `port`."""
        log = open(os.path.join(self.place, "servers.log"), "ab")
        process = subprocess.Popen(
            [self.wan, "exec", host, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self.processes.append(process)
        deadline = time.monotonic() + READY_SECONDS
        while not self.call("exec", host, "ss", "-Hltn", f"sport = :{port}").strip():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{os.path.basename(command[0])} does not listen on {host}:{port}: {self.last_words()}")
            time.sleep(0.02)
        return process

    def last_words(self):
        with open(os.path.join(self.place, "servers.log"), errors="replace") as log:
            return " / ".join(log.read().splitlines()[-3:])

    def run(self, host, command, limit_seconds, act=None):
        """Runs a command to its end; `act` is (seconds, function), done that long after the start."""
        times = os.path.join(self.place, "times.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(times)
        process = subprocess.Popen(
            [self.wan, "exec", host, sys.executable, "-c", CLOCK, times, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        self.processes.append(process)
        timer = threading.Timer(*act) if act else None
        if timer:
            timer.start()
        try:
            out, err = process.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"not done after {limit_seconds:.0f} s") from late
        finally:
            if timer:
                timer.cancel()
            kill(process)
        try:
            with open(times) as file:
                took = json.load(file)
        except FileNotFoundError as none:
            raise Failed(err.strip().splitlines()[-1] if err.strip() else "it did not run") from none
        return Ran(**took, out=out, err=err)

    def status(self):
        """Why the network was not what it was to be, if it was not, and what its links let through or dropped."""
        status = json.loads(self.call("status", "--json"))
        doubts = [] if status["truthful"] else status["why"] or ["the emulator says so"]
        queues = {name: queue for name, queue in status.get("queues", {}).items() if queue.get("bytes")}
        return doubts, {name: {"bytes": queue["bytes"], "drops": queue["drops"]} for name, queue in queues.items()}


def wait_for_quiet(limit_seconds):
    """Waits until this machine has little else to do: what else it does is missing in what is measured."""

    def busy():
        with open("/proc/stat") as file:
            times = [int(number) for number in file.readline().split()[1:9]]
        return sum(times) - times[3] - times[4], sum(times)

    deadline, before = time.monotonic() + limit_seconds, busy()
    while time.monotonic() < deadline:
        time.sleep(1)
        now = busy()
        if now[0] - before[0] < QUIET_SHARE * (now[1] - before[1]):
            break
        before = now


def kill(process):
    """Ends a process that was started here, with those of its group. One that has ended is left alone: its
    number may be another's by now."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
