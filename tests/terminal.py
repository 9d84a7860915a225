"""Runs a program on a terminal of its own: waits for texts, types others, prints all that was shown, and ends
with the program's exit code; with 200 where a text never came, or where it left the terminal another than it was."""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

PATIENCE = 60


def main():
    steps, command = json.loads(sys.argv[1]), sys.argv[2:]
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    before = termios.tcgetattr(terminal)
    deadline = time.monotonic() + PATIENCE
    shown, seen = b"", 0

    def read():
        if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            return b""
        try:
            return os.read(terminal, 65536)
        except OSError:
            return b""

    for verb, text in steps:
        text = text.encode()
        if verb == "type":
            os.write(terminal, text)
            continue
        if verb == "signal":
            os.kill(child, int(text))
            continue
        while text not in shown[seen:]:
            more = read()
            if not more:
                os.kill(child, 9)
                sys.stdout.buffer.write(shown + b"\n--- waited in vain for " + text)
                sys.exit(200)
            shown += more
        seen = shown.index(text, seen) + len(text)
    while more := read():
        shown += more
    after = termios.tcgetattr(terminal)
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    if after != before:
        sys.exit(200)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


main()
