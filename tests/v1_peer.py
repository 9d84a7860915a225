#!/usr/bin/env python3
"""A small, independent speaker of wire protocol v1: the outside judge of the integration tests.

    v1_peer.py recv ...   a v1 receiver, with faults on request and a log of the frames it saw
    v1_peer.py send ...   a v1 sender
    v1_peer.py raw  ...   stdin's bytes out on one connection, whatever comes back to stdout

It was written from the description of the format alone and shares no code with the programs it judges.
It is literal on purpose: what the format does not allow is an error here, never something to be guessed at.
Standard library only, Python 3.11 or later.
"""
import argparse
import collections
import fcntl
import hashlib
import json
import os
import queue
import signal
import socket
import struct
import sys
import termios
import threading
import time

CHUNK = 65536
PATIENCE = 60.0  # seconds the sender waits on a silent receiver: a test has to end, even a failing one


class Closed(Exception):
    """The other side closed; args[0] says how far into the wanted bytes."""


class Trouble(Exception):
    """Something that ends the sender, or one connection of the receiver; the text says what."""


def exactly(sock, count):
    """Read `count` bytes and not one more: what follows belongs to the next frame and stays in the socket."""
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(min(count - len(data), CHUNK))
        if not piece:
            raise Closed(len(data))
        data += piece
    return bytes(data)


def readable(data):
    """A name as text. v1 names are UTF-8; one that is not must still show up in a log."""
    return data.decode("utf-8", "backslashreplace")


def leave_at_eof():
    while os.read(0, CHUNK):
        pass
    os._exit(0)


def read_number(sock, width):
    """A number is ASCII digits only. int() would let signs, spaces and underscores pass."""
    digits = exactly(sock, width)
    if not digits.isdigit():  # of bytes: true for 0-9 alone
        raise Trouble(f"not a number: {digits!r}")
    return int(digits)


def waiting(sock):
    """Bytes that already lie in the socket behind the frame just read: more than 0 is a peer that sends ahead."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0\0\0\0"))[0]


def make_directory(name):
    try:
        os.mkdir(name)  # one level only: the sender has to list parents first
    except FileExistsError:
        if not os.path.isdir(name):
            raise


def take(sock, name, offset, size):
    """Write the bytes as they arrive, so that a cut connection leaves what came before the cut."""
    md5 = hashlib.md5()
    with open(name, "r+b", buffering=0) as file:  # r+b: no such file is an error, and nothing is truncated
        file.seek(offset)
        left = size
        while left:
            piece = sock.recv(min(left, CHUNK))
            if not piece:
                raise Closed(size - left)
            left -= len(piece)
            md5.update(piece)
            rest = memoryview(piece)
            while rest:  # an unbuffered write may be short
                rest = rest[file.write(rest):]
    return md5.hexdigest()


class Receiver:
    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()  # guards the log and the two counters
        self.log_file = open(options.log, "a", encoding="utf-8") if options.log else None
        self.written = 0  # wf frames read whole, over all connections: the N of the faults
        self.dropped = 0

    def log(self, **record):
        if self.log_file:
            with self.lock:
                self.log_file.write(json.dumps(record, ensure_ascii=False) + "\n")
                self.log_file.flush()

    def run(self):
        family, _, _, _, address = socket.getaddrinfo(
            self.options.addr, self.options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        # A test may start a second receiver on the port of the first, whose connections linger in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `::` takes IPv4 too
        listener.bind(address)
        listener.listen(5)
        # Leaving at once loses nothing: file writes are unbuffered, the log is flushed line by line.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        if self.options.until_eof:
            threading.Thread(target=leave_at_eof, daemon=True).start()
        print("listening", *listener.getsockname()[:2], flush=True)
        number = 0
        while True:
            sock, _ = listener.accept()
            number += 1
            self.log(conn=number, op="open")
            threading.Thread(target=self.serve, args=(sock, number), daemon=True).start()

    def serve(self, sock, number):
        """One connection. `why` is for whoever reads the log: the wire shows only that it ended."""
        try:
            while True:
                op = None
                op = exactly(sock, 2)
                if op in (b"cd", b"cf"):
                    self.make(sock, number, op)
                elif op == b"wf":
                    self.write(sock, number)
                else:
                    raise Trouble(f"unknown op {op!r}")
        except Closed as closed:
            # Between two frames is the one place to end; no frame at all is fine too (a probe).
            why = "cut short" if op or closed.args[0] else "end"
        except (Trouble, OSError, ValueError) as error:  # ValueError: a name with a zero byte
            why = str(error)
        # Logged first: once the peer can see the close, the log already has it.
        self.log(conn=number, op="close", why=why)
        sock.close()

    def make(self, sock, number, op):
        """cd and cf: a list of paths, and one byte for all of it."""
        payload = exactly(sock, read_number(sock, 6))
        # A list whose every path ends with \n splits into one empty name too many: empty names are skipped.
        names = [name for name in payload.split(b"\n") if name]
        self.log(conn=number, op=op.decode(), names=len(names), payload=len(payload), waiting=waiting(sock))
        answer = b"0"
        try:
            for name in names:
                make_directory(name) if op == b"cd" else self.make_file(name)
        except (OSError, ValueError):
            answer = b"1"  # the rest of the list is left alone, the connection goes on
        sock.sendall(answer)

    def make_file(self, name):
        if os.path.basename(name) == self.options.fail_create:
            raise OSError("told to fail")
        if os.path.isfile(name):
            os.rename(name, name + b"_" + str(time.time()).encode())
        open(name, "wb").close()

    def write(self, sock, number):
        """wf: a range of a file that is there already."""
        name = exactly(sock, read_number(sock, 6))
        offset, size = read_number(sock, 12), read_number(sock, 12)
        record = dict(conn=number, op="wf", name=readable(name), offset=offset, size=size)
        try:
            if os.path.basename(name) == self.options.refuse_name:
                raise Trouble("told to refuse " + readable(name))
            digest = take(sock, name, offset, size)
        except (Trouble, Closed, OSError, ValueError) as error:
            # There is no answer for "it failed": the connection ends. `waiting` means nothing inside a frame.
            self.log(**record, waiting=None, failed="cut short" if isinstance(error, Closed) else str(error))
            raise
        fault = self.choose_fault(name)
        self.log(**record, waiting=waiting(sock), **({"fault": fault} if fault else {}))
        if fault == "drop":
            # Linger time 0 makes close send RST, as a killed machine or a firewall would.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Trouble("told to drop")
        if fault == "stall":
            threading.Event().wait()  # for ever; this frame on the stack keeps the socket open
        if fault == "wrong":
            digest = ("1" if digest[0] == "0" else "0") + digest[1:]  # well formed, and surely wrong
        sock.sendall(digest.encode())

    def choose_fault(self, name):
        """Which of the faults asked for, if any, befalls this wf."""
        options = self.options
        with self.lock:  # counting and choosing in one step, or two connections could both be the N-th
            self.written += 1
            if options.drop_after and self.written % options.drop_after == 0 and self.dropped < options.drops:
                self.dropped += 1
                return "drop"
            if self.written == options.stall_after:
                return "stall"
            if self.written <= options.wrong_digest or os.path.basename(name) == options.wrong_digest_name:
                return "wrong"
        return None


def digits(number, width):
    """A number as v1 writes it: zero-padded to its width, never wider."""
    text = b"%0*d" % (width, number)
    if len(text) != width:
        raise Trouble(f"{number} does not fit {width} digits")
    return text


def survey(path, remote_dir):
    """What to make and send: remote directories (parents first), (local, remote, size) of files, end of each path."""
    if not os.path.isdir(path):
        return [remote_dir], [(path, os.path.join(remote_dir, os.path.basename(path)), os.path.getsize(path))], b""
    directories, files = [], []
    for folder, below, names in os.walk(path):
        below.sort()
        inside = os.path.relpath(folder, path)
        # The top folder is not part of the remote path: it is remote_dir itself, spelled as it was given.
        remote = remote_dir if inside == b"." else os.path.join(remote_dir, inside)
        directories.append(remote)
        for local in (os.path.join(folder, name) for name in sorted(names)):
            if os.path.isfile(local):  # v1 carries directories and files only
                files.append((local, os.path.join(remote, os.path.basename(local)), os.path.getsize(local)))
    return directories, files, b"\n"


def ask_to_make(sock, op, paths, end):
    """One cd or cf frame. `end` closes every path of a directory source, and is empty for a single file (one path)."""
    payload = b"".join(path + end for path in paths)
    if payload.count(b"\n") != len(end) * len(paths):
        raise Trouble("v1 cannot carry a name with a line feed")
    payload.decode("utf-8")  # nor one that is not UTF-8: raises UnicodeDecodeError, a ValueError
    try:
        sock.sendall(op + digits(len(payload), 6) + payload)
        answer = exactly(sock, 1)
    except (Closed, ConnectionError):
        raise Trouble(f"closed on {op.decode()}") from None
    if answer != b"0":
        raise Trouble(f"{op.decode()} was answered {answer!r}")


def send_ranges(address, items, ahead):
    """One data connection: takes items until the queue is empty, with at most `ahead` of them unanswered."""
    with socket.create_connection(address, timeout=PATIENCE) as sock:
        unanswered = collections.deque()
        broken = False
        while True:
            try:
                item = None if broken else items.get_nowait()
            except queue.Empty:
                item = None
            if item:
                local, name, offset, size = item
                with open(local, "rb") as file:
                    file.seek(offset)
                    data = file.read(size)
                if len(data) != size:
                    raise Trouble(f"{readable(local)} changed while it was read")
                unanswered.append((readable(name), offset, hashlib.md5(data).hexdigest().encode()))
                frame = b"wf" + digits(len(name), 6) + name + digits(offset, 12) + digits(size, 12) + data
                try:
                    # Header and data in one go: in two, a small file waits for a delayed acknowledgement.
                    sock.sendall(frame)
                except (ConnectionError, TimeoutError):
                    broken = True  # answers that came before the break are still in the socket: read on to see
            if not unanswered:
                return
            if item is None or broken or len(unanswered) >= ahead:
                name, offset, expected = unanswered.popleft()
                try:
                    answer = exactly(sock, 32)
                except (Closed, ConnectionError):
                    raise Trouble(f"closed on {name} at {offset}") from None
                except TimeoutError:
                    raise Trouble(f"no answer on {name} at {offset}") from None
                if answer != expected:  # byte for byte: upper-case hex is wrong as well
                    raise Trouble(f"wrong md5 for {name} at {offset}: {answer!r}")


def send(options):
    address = (options.host, options.port)
    if options.probe:
        socket.create_connection(address, timeout=PATIENCE).close()
    directories, files, end = survey(options.file, options.remote_dir)
    with socket.create_connection(address, timeout=PATIENCE) as sock:
        ask_to_make(sock, b"cd", directories, end)
        ask_to_make(sock, b"cf", [remote for _, remote, _ in files], end)
    items = queue.SimpleQueue()
    for local, remote, size in files:  # a file of length 0 yields no range: cf has made it whole
        for offset in range(0, size, options.length):
            items.put((local, remote, offset, min(options.length, size - offset)))
    results = queue.SimpleQueue()

    def work():
        try:
            results.put(send_ranges(address, items, options.ahead))
        except Exception as error:  # every thread must report, or the wait below never ends
            results.put(error)

    for _ in range(options.connections):  # all of them connect, even when there is less to send than that
        threading.Thread(target=work, daemon=True).start()
    for _ in range(options.connections):
        error = results.get()
        if error:
            raise error  # the first one is the news; the other threads end with the process


def raw(options):
    status = 0
    with socket.create_connection((options.host, options.port), timeout=options.timeout) as sock:
        try:
            sock.sendall(sys.stdin.buffer.read())
            if options.half_close:
                sock.shutdown(socket.SHUT_WR)
        except TimeoutError:
            status = 3
        except OSError:
            status = 4  # the peer is gone, but what it said before may still be in the socket
        try:
            while piece := sock.recv(CHUNK):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        except TimeoutError:
            status = status or 3
        except ConnectionError:
            status = 4
    return status


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def main():
    parser = argparse.ArgumentParser(description="An independent peer of wire protocol v1.", allow_abbrev=False)
    modes = parser.add_subparsers(dest="mode", required=True)
    name = dict(type=os.fsencode, metavar="NAME")  # names are bytes throughout, as on the wire
    option = modes.add_parser("recv", allow_abbrev=False).add_argument
    option("--addr", default="127.0.0.1")
    option("--port", type=int, default=0)
    option("--log", metavar="FILE", help="append one JSON line a frame")
    option("--until_eof", action="store_true", help="end when stdin does")
    option("--wrong_digest", type=int, default=0, metavar="N", help="wrong md5 for the first N wf")
    option("--wrong_digest_name", **name, help="wrong md5 for every wf of NAME")
    option("--refuse_name", **name, help="close on every wf of NAME")
    option("--fail_create", **name, help="answer 1 to a cf with NAME, stopping there")
    option("--drop_after", type=positive, metavar="N", help="reset the connection after every N-th wf, unanswered")
    option("--drops", type=int, default=1, metavar="M", help="at most M times")
    option("--stall_after", type=positive, metavar="N", help="after the N-th wf neither answer nor read, for ever")
    senders = [modes.add_parser(mode, allow_abbrev=False).add_argument for mode in ("send", "raw")]
    for option in senders:
        option("--host", required=True)
        option("--port", type=int, required=True)
    option = senders[0]
    option("--file", type=os.fsencode, required=True, metavar="PATH")
    option("--remote_dir", type=os.fsencode, required=True, metavar="DIR")
    option("--length", type=positive, default=4194304, help="bytes of a range")
    option("--connections", type=positive, default=3)
    option("--ahead", type=positive, default=1, metavar="K", help="wf unanswered on each connection")
    option("--probe", action="store_true", help="first open and close a connection with nothing sent")
    option = senders[1]
    option("--timeout", type=float, default=5, help="seconds of silence to bear")
    option("--half_close", action="store_true", help="shut down writing after stdin's bytes")
    options = parser.parse_args()
    try:
        if options.mode == "recv":
            Receiver(options).run()
        return send(options) if options.mode == "send" else raw(options)
    except (Trouble, OSError, ValueError) as error:
        return str(error) or repr(error)  # sys.exit prints it on stderr and exits 1


if __name__ == "__main__":
    sys.exit(main())
