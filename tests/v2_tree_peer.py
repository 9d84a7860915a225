#!/usr/bin/env python3
"""The part of the independent v2 peer that reads, lists and changes trees: beside v2_peer.py, whose frames it uses.

    v2_tree_peer.py frames       the frames of tests/golden/v2.hex that are about trees, one a line, in its order
    v2_tree_peer.py list ...     what is in a folder of a server, one JSON line a name
    v2_tree_peer.py fetch ...    a tree of a server, into a folder
    v2_tree_peer.py act ...      one request that changes or asks something; one JSON line
    v2_tree_peer.py serve DIR    a server in clear of what is below DIR, with faults on request and a log of the requests

It was written from docs/PROTOCOL.md alone, as v2_peer.py was, and is as literal.
"""
import argparse
import collections
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import struct
import sys
import threading

from v2_peer import (
    ANSWER, BLOCK, DATA, DENIED, EXTENDED, FINISH, FINISHED, HEARTBEAT, HELLO, HOLE, JOIN, LOGIN, M64, MAGIC, MISMATCHED, OPEN, OPENED,
    OWNED, PATIENCE, REFUSED, SAME, STATUS, STORED, VOID, VOIDED, WELCOME, WINDOW, Body, Closed, Trouble, Wire, a_time, block_digest,
    frame, positive, readable, run)

READ, LIST, REMOVE, RENAME, MAKE_DIRECTORY, SUM, SPACE, CHANGE_PASSWORD, RELAY = range(0x0A, 0x13)
LISTED, CONTENT, SUMMED, ROOM = range(0x8B, 0x8F)
NAMES = {HELLO: "hello", OPEN: "open", JOIN: "join", FINISH: "finish", READ: "read", LIST: "list", REMOVE: "remove", RENAME: "rename",
         MAKE_DIRECTORY: "mkdir", SUM: "sum", SPACE: "space", CHANGE_PASSWORD: "passwd"}
BROWSE = 8
PASS_ON = 16
ITSELF = 1
FOLDER, SYMLINK, FILE, HOLED, SPECIAL = range(5)
PAGE_MAX = 512
ASKED_MAX = 32768

# --- What is listed -----------------------------------------------------------------------------

Entry = collections.namedtuple("Entry", "name kind mtime size tag names target mode owner xattrs")


def an_entry(name, kind, mtime, mode, size=0, tag=b"", names=0, target=b"", owner=None, xattrs=()):
    return Entry(name, kind, mtime, size, tag, names, target, mode, owner, tuple(xattrs))


def listed(entry):
    """The bytes of one name in a page."""
    flags = (OWNED if entry.owner else 0) | (EXTENDED if entry.xattrs else 0)
    data = run(entry.name) + bytes([flags, entry.kind])
    if entry.kind in (FILE, HOLED):
        data += struct.pack(">Q", entry.size) + a_time(entry.mtime) + entry.tag + struct.pack(">I", entry.names)
    else:
        data += a_time(entry.mtime)
    if entry.kind == SYMLINK:
        data += run(entry.target)
    data += struct.pack(">H", entry.mode)
    if entry.owner:
        data += struct.pack(">II", *entry.owner)
    if entry.xattrs:
        data += struct.pack(">H", len(entry.xattrs)) + b"".join(run(name) + run(value) for name, value in entry.xattrs)
    return data


def page(is_last, entries):
    return frame(LISTED, struct.pack(">BH", is_last, len(entries)) + b"".join(map(listed, entries)))


def read_page(body):
    """Whether it is the last, and what is in it."""
    last, count = body.number(1), body.number(2)
    if last > 1 or count > PAGE_MAX:
        raise Trouble(f"a page of {count} names, last: {last}")
    entries = []
    for _ in range(count):
        name, flags, kind = body.path(may_be_empty=True), body.number(1), body.number(1)
        if b"/" in name:
            raise Trouble(f"not a name: {name!r}")
        size, tag, names, target = 0, b"", 0, b""
        if kind in (FILE, HOLED):
            size, mtime, tag, names = body.number(8), body.time(), body.bytes(16), body.number(4)
        elif kind in (FOLDER, SYMLINK, SPECIAL):
            mtime = body.time()
        else:
            raise Trouble(f"kind {kind}")
        if kind == SYMLINK:
            target = body.run()
            if not 1 <= len(target) <= 4095 or b"\0" in target:
                raise Trouble(f"not a target: {target!r}")
        mode = body.number(2) & 0o777
        owner = (body.number(4), body.number(4)) if flags & OWNED else None
        xattrs = [(body.run(), body.run()) for _ in range(body.number(2))] if flags & EXTENDED else []
        entries.append(an_entry(name, kind, mtime, mode, size, tag, names, target, owner, xattrs))
    body.end()
    if not entries and not last:
        raise Trouble("a page without names that is not the last")
    return bool(last), entries


def look(name, path, flags):
    """What is at a path of this machine, as it is listed."""
    status = os.lstat(path)
    mtime, mode, target, size, tag, names = status.st_mtime_ns, status.st_mode & 0o777, b"", 0, b"", 0
    if stat.S_ISDIR(status.st_mode):
        kind = FOLDER
    elif stat.S_ISLNK(status.st_mode):
        kind, target = SYMLINK, os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        kind = HOLED if status.st_blocks * 512 < status.st_size else FILE
        size, tag, names = status.st_size, tag_of(status), status.st_nlink
    else:
        kind = SPECIAL
    owner = (status.st_uid, status.st_gid) if flags & OWNED else None
    return an_entry(name, kind, mtime, mode, size, tag, names, target, owner)


def tag_of(status):
    return hashlib.sha256(struct.pack(">QQq", status.st_dev, status.st_ino, status.st_ctime_ns)).digest()[:16]


# --- Requests -----------------------------------------------------------------------------------


def read_body(path, entry, start, end):
    return (struct.pack(">BQ", entry.kind == HOLED, entry.size) + a_time(entry.mtime) + entry.tag + struct.pack(">QQ", start, end)
            + run(path))


def take_payload(wire, checksum, request_body, start, end, put):
    """Gives each block that is right to `put`; how it ended: the last mark, or MISMATCHED."""
    at, is_good = start, True
    while at < end:
        mark = wire.exactly(1)[0]
        if mark == VOID:
            return VOID
        if mark == HOLE:
            length, data = int.from_bytes(wire.exactly(8), "big"), b""
            if not 0 < length <= end - at:
                raise Trouble(f"a hole of {length} bytes")
            digest = block_digest(checksum, request_body, at, b"", length)
        elif mark == DATA:
            length = min(BLOCK - at % BLOCK, end - at)
            data = wire.exactly(length)
            digest = block_digest(checksum, request_body, at, data)
        else:
            raise Trouble(f"mark {mark:x}")
        is_good &= wire.exactly(len(digest)) == digest
        if is_good and data:
            put(at, data)
        at += length
    mark = wire.exactly(1)[0]
    if mark not in (VOID, SAME):
        raise Trouble(f"mark {mark:x} at the end of a range")
    return mark if is_good or mark == VOID else MISMATCHED


def payload(file, checksum, request_body, start, end, has_holes, damages):
    """The blocks of a range, without the mark at its end."""
    at = start
    while at < end:
        data_at = at
        if has_holes:
            try:
                data_at = min(os.lseek(file, at, os.SEEK_DATA), end)
            except OSError:  # no data from here on
                data_at = end
        if data_at > at:
            yield struct.pack(">BQ", HOLE, data_at - at) + block_digest(checksum, request_body, at, b"", data_at - at)
            at = data_at
            continue
        stop = min(at - at % BLOCK + BLOCK, end)
        data = os.pread(file, stop - at, at).ljust(stop - at, b"\0")
        digest = block_digest(checksum, request_body, at, data)
        if damages:
            data, damages = bytes([data[0] ^ 1]) + data[1:], False
        yield bytes([DATA]) + data + digest
        at = stop


# --- Client -------------------------------------------------------------------------------------


class Client:
    def __init__(self, options):
        self.options = options
        self.token = secrets.token_bytes(32)

    def say(self, **record):
        print(json.dumps(record), flush=True)

    def connect(self):
        sock = socket.create_connection((self.options.host, self.options.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock)
        sock.sendall(MAGIC + frame(HELLO, struct.pack(">BBQ", 2, 2, 0)))
        body = self.expect(wire, WELCOME)
        if (body.number(1), body.number(8)) != (2, 0):
            raise Trouble("another version, or features that nobody asked for")
        body.end()
        return wire

    def reply(self, wire):
        while True:
            kind, body = wire.read()
            if kind == HEARTBEAT:
                body.end()
            elif kind == REFUSED:
                raise Trouble("refused: " + readable(body.run()))
            else:
                return kind, body

    def expect(self, wire, kind):
        found, body = self.reply(wire)
        if found == ANSWER:
            raise Trouble("answered {}: {}".format(*self.answer(body)))
        if found != kind:
            raise Trouble(f"not {kind:x} but {found:x}")
        return body

    def answer(self, body):
        status, reason = body.number(1), body.run()
        body.end()
        if status >= len(STATUS) or len(reason) > 180:
            raise Trouble(f"status {status}, a reason of {len(reason)} bytes")
        return STATUS[status], reason.decode()

    def open(self):
        wire = self.connect()
        wire.sock.sendall(frame(OPEN, self.token + struct.pack(">HB", BROWSE, self.options.checksum) + run(self.options.dir) + b"\0"))
        body = self.expect(wire, OPENED)
        is_new, was_open, folder = body.number(1), body.number(1), body.run()
        body.end()
        if is_new or was_open:
            raise Trouble("a folder that was made, or a job that was there")
        return wire, folder

    def join(self):
        wire = self.connect()
        wire.sock.sendall(frame(JOIN, self.token))
        kind, body = self.reply(wire)
        if kind != ANSWER or self.answer(body)[0] != "stored":
            raise Trouble("not let in")
        return wire

    def finish(self, wire):
        wire.sock.sendall(frame(FINISH))
        body = self.expect(wire, FINISHED)
        totals = [body.number(8) for _ in range(8)]
        body.end()
        if any(totals[2:5]):
            raise Trouble(f"totals of a job that brought nothing: {totals}")
        return totals[:2]

    def list(self, wire, path, flags):
        wire.sock.sendall(frame(LIST, bytes([flags]) + run(path)))
        return self.pages(wire, flags & ITSELF)

    def pages(self, wire, is_itself):
        entries, is_last = [], False
        while not is_last:
            is_last, some = read_page(self.expect(wire, LISTED))
            entries += some
        names = [entry.name for entry in entries]
        if is_itself and names != [b""] or not is_itself and (b"" in names or len(set(names)) != len(names)):
            raise Trouble(f"not what was asked for: {names}")
        return entries

    def show(self):
        wire, folder = self.open()
        self.say(op="open", folder=readable(folder))
        flags = (ITSELF if self.options.itself else 0) | OWNED | EXTENDED
        kinds = "folder", "symlink", "file", "holed", "special"
        for entry in self.list(wire, self.options.path, flags):
            xattrs = {readable(name): value.hex() for name, value in entry.xattrs}
            self.say(op="listed", name=readable(entry.name), kind=kinds[entry.kind], mtime=entry.mtime, mode=entry.mode, size=entry.size,
                     tag=entry.tag.hex(), names=entry.names, target=readable(entry.target), owner=entry.owner, xattrs=xattrs)
        self.finish(wire)
        return 0

    def act(self):
        """Whatever one request comes to."""
        options, (path, *more) = self.options, self.options.arguments or [b""]
        wire, _ = self.open()
        wire.sock.sendall({
            "remove": lambda: frame(REMOVE, run(path) + bytes([bool(more)])),
            "rename": lambda: frame(RENAME, run(path) + run(more[0])),
            "mkdir": lambda: frame(MAKE_DIRECTORY, run(path) + bytes([bool(more)])),
            "sum": lambda: frame(SUM, run(path) + bytes([1])),
            "blake3": lambda: frame(SUM, run(path) + bytes([2])),
            "space": lambda: frame(SPACE),
            "passwd": lambda: frame(CHANGE_PASSWORD, run(path) + run(more[0])),
        }[options.act]())
        kind, body = self.reply(wire)
        if kind == ANSWER:
            status, reason = self.answer(body)
            self.say(status=status, reason=reason)
        elif kind == SUMMED and options.act in ("sum", "blake3"):
            self.say(digest=body.run().hex())
        elif kind == ROOM and options.act == "space":
            has_quota, numbers = body.number(1), [body.number(8) for _ in range(6)]
            if has_quota > 1 or not has_quota and any(numbers[:4]):
                raise Trouble(f"a quota that is none: {has_quota}, {numbers}")
            self.say(quota=numbers[:4] if has_quota else None, free=numbers[4], size=numbers[5])
        else:
            raise Trouble(f"{kind:x} to {options.act}")
        body.end()
        self.finish(wire)
        return 0

    def fetch(self):
        wire, _ = self.open()
        folders, links, files, first_names = [], [], [], {}
        into = os.fsencode(self.options.into)
        itself = self.list(wire, b"", ITSELF)[0]
        if itself.kind in (FILE, HOLED):
            files.append((b"", into, itself))
        else:
            waiting = [(b"", itself)]
            while waiting:
                above, entry = waiting.pop()
                os.makedirs(os.path.join(into, above), exist_ok=True)
                folders.append((os.path.join(into, above), entry))
                for entry in self.list(wire, above, 0):
                    path = above + b"/" + entry.name if above else entry.name
                    local = os.path.join(into, path)
                    if entry.kind == FOLDER:
                        waiting.append((path, entry))
                    elif entry.kind == SYMLINK:
                        os.symlink(entry.target, local)
                        os.utime(local, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
                    elif entry.kind != SPECIAL:
                        first = first_names.setdefault(entry.tag, local)
                        if first == local:
                            files.append((path, local, entry))
                        elif entry.names < 2:
                            raise Trouble(f"{readable(path)} is the only name of its file, and has the tag of {readable(first)}")
                        else:
                            links.append((first, local))
        self.read_files(files)
        for first, local in links:
            os.link(first, local)
        for local, entry in reversed(folders):
            os.chmod(local, entry.mode)
            os.utime(local, ns=(entry.mtime, entry.mtime))
        sent_files, sent_bytes = self.finish(wire)
        self.say(op="fetched", files=len(files), folders=len(folders), links=len(links), sent_files=sent_files, sent_bytes=sent_bytes)
        return 0

    def read_files(self, files):
        """All ranges, in turn over some connections, with so many unanswered on each."""
        ranges = [(*file, start, min(start + self.options.length, file[2].size)) for file in files
                  for start in range(0, max(file[2].size, 1), self.options.length)]
        wires = [self.join() for _ in range(self.options.connections)]
        for _, local, entry in files:
            with open(local, "wb") as file:
                file.truncate(entry.size)
        for number, wire in enumerate(wires):
            unanswered, asked = collections.deque(), 0
            for item in ranges[number::len(wires)]:
                body = read_body(item[0], item[2], *item[3:])
                while unanswered and (len(unanswered) >= self.options.ahead or asked + len(body) + 9 > ASKED_MAX):
                    asked -= self.take_range(wire, *unanswered.popleft())
                wire.sock.sendall(frame(READ, body))
                unanswered.append((item, body))
                asked += len(body) + 9
            while unanswered:
                self.take_range(wire, *unanswered.popleft())
        for _, local, entry in files:
            os.chmod(local, entry.mode)
            os.utime(local, ns=(entry.mtime, entry.mtime))

    def take_range(self, wire, item, body):
        path, local, _, start, end = item
        self.expect(wire, CONTENT).end()
        with open(local, "r+b") as file:
            def put(at, data):
                file.seek(at)
                file.write(data)
            ended = take_payload(wire, self.options.checksum, body, start, end, put)
        if ended != SAME:
            raise Trouble(f"{readable(path)}, {start} to {end}: ended in {ended:x}")
        return len(body) + 9


# --- Server -------------------------------------------------------------------------------------


class Refusal(Exception):
    """What a request is answered with."""


class Server:
    def __init__(self, options):
        self.options = options
        self.changed = threading.Condition()  # guards all below
        self.jobs = {}  # by token: checksum and folder
        self.faults = {"damage": options.damage, "void": options.void, "cut": options.cut}
        self.log_file = open(options.log, "a", encoding="utf-8") if options.log else None

    def log(self, **record):
        if self.log_file:
            with self.changed:
                self.log_file.write(json.dumps(record) + "\n")
                self.log_file.flush()

    def run(self):
        listener = socket.create_server(("127.0.0.1", self.options.port))
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        print("listening", *listener.getsockname(), flush=True)
        for number in range(1, 1 << 30):
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(sock, number), daemon=True).start()

    def serve(self, sock, number):
        why = "end"
        try:
            self.converse(Wire(sock), number)
        except Closed as closed:
            why = "cut short" if closed.args[0] else "end"
        except (Trouble, OSError) as error:
            why = str(error)
        self.log(conn=number, op="close", why=why)
        sock.close()

    def once(self, fault):
        """Is it to be done once more?"""
        with self.changed:
            self.faults[fault] -= 1
            return self.faults[fault] >= 0

    def converse(self, wire, number):
        if wire.exactly(4) != MAGIC:
            raise Trouble("not the greeting of version 2")
        greeted, job = False, None
        while True:
            kind, body = wire.read()
            if kind not in NAMES:
                raise Trouble(f"unknown type {kind:x}")
            if (kind == HELLO) == greeted or kind != HELLO and (kind in (OPEN, JOIN)) == (job is not None):
                raise Trouble(f"{NAMES[kind]} out of turn")
            self.log(conn=number, op=NAMES[kind])
            if kind == HELLO:
                greeted = True
                low, high, _ = body.number(1), body.number(1), body.number(8)
                body.end()
                if not low <= 2 <= high:
                    raise Trouble(f"versions {low} to {high}")
                wire.sock.sendall(frame(WELCOME, struct.pack(">BQ", 2, 0)))
            elif kind in (OPEN, JOIN):
                job = (self.open if kind == OPEN else self.join)(wire, body)
                if job is None:
                    return
            else:
                try:
                    self.answer(wire, kind, body, *job)
                except (Refusal, OSError) as why:
                    text = str(why).encode()[:180].decode(errors="ignore").encode()
                    wire.sock.sendall(frame(ANSWER, bytes([DENIED]) + run(text)))

    def open(self, wire, body):
        token, flags, checksum, folder, credential = body.bytes(32), body.number(2), body.number(1), body.run(), body.number(1)
        body.end()
        if flags != BROWSE or checksum > 1 or credential or len(folder) > 8192:
            raise Trouble("a job that this server does not do")
        path = os.path.join(os.fsencode(self.options.folder), folder.lstrip(b"/"))
        if not os.path.lexists(path):
            wire.sock.sendall(frame(REFUSED, run(b"there is nothing at '%s'" % folder[:100])))
            return None
        with self.changed:
            again = token in self.jobs
            self.jobs[token] = checksum, path
            self.changed.notify_all()
        wire.sock.sendall(frame(OPENED, bytes([0, again]) + run(path)))
        return checksum, path

    def join(self, wire, body):
        token = body.bytes(32)
        body.end()
        with self.changed:
            if not self.changed.wait_for(lambda: token in self.jobs, LOGIN):
                wire.sock.sendall(frame(REFUSED, run(b"no such job")))
                return None
            job = self.jobs[token]
        wire.sock.sendall(frame(ANSWER, bytes([STORED]) + run(b"")))
        return job

    def below(self, top, path):
        """A path of this machine; no link is followed."""
        at = top
        for name in [name for name in path.split(b"/") if name]:
            if not stat.S_ISDIR(os.lstat(at).st_mode):
                raise Refusal(f"not a folder: {readable(at)}")
            at = os.path.join(at, name)
        return at

    def answer(self, wire, kind, body, checksum, top):
        send, stored = wire.sock.sendall, frame(ANSWER, bytes([STORED]) + run(b""))
        if kind == READ:
            self.read(wire, body, checksum, top)
        elif kind == LIST:
            flags, path = body.number(1), body.path(may_be_empty=True)
            body.end()
            at = self.below(top, path)
            if flags & ITSELF:
                send(page(True, [look(b"", at, flags)]))
                return
            entries = [look(name, os.path.join(at, name), flags) for name in os.listdir(at) if not name.startswith(b".ptf-")]
            count = self.options.page
            pages = [entries[start:start + count] for start in range(0, len(entries), count)] or [[]]
            for some in pages:
                send(frame(HEARTBEAT) + page(some is pages[-1], some))
        elif kind == REMOVE:
            at, is_recursive = self.below(top, body.path()), body.number(1)
            body.end()
            if not stat.S_ISDIR(os.lstat(at).st_mode):
                os.unlink(at)
            elif is_recursive:
                shutil.rmtree(at)
            else:
                os.rmdir(at)
            send(stored)
        elif kind == RENAME:
            one, two = self.below(top, body.path()), self.below(top, body.path())
            body.end()
            if os.path.lexists(two):
                raise Refusal(f"{readable(two)} is there already")
            os.rename(one, two)
            send(stored)
        elif kind == MAKE_DIRECTORY:
            at, with_parents = self.below(top, body.path()), body.number(1)
            body.end()
            if with_parents:
                os.makedirs(at, exist_ok=True)
            else:
                os.mkdir(at)
            send(stored)
        elif kind == SUM:
            at, algorithm = self.below(top, body.path(may_be_empty=True)), body.number(1)
            body.end()
            if algorithm != 1:
                raise Refusal("this server has no BLAKE3")
            with open(at, "rb") as file:
                send(frame(HEARTBEAT) + frame(SUMMED, run(hashlib.file_digest(file, "md5").digest())))
        elif kind == SPACE:
            body.end()
            room = os.statvfs(top)
            send(frame(ROOM, struct.pack(">B6Q", 0, 0, 0, 0, 0, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)))
        elif kind == CHANGE_PASSWORD:
            body.run(), body.run(), body.end()
            raise Refusal("this server has no accounts")
        else:
            body.end()
            send(frame(FINISHED, bytes(64)))

    def read(self, wire, body, checksum, top):
        has_holes, size, mtime, tag = body.number(1), body.number(8), body.time(), body.bytes(16)
        start, end, at = body.number(8), body.number(8), self.below(top, body.path(may_be_empty=True))
        body.end()
        if has_holes > 1 or not start <= end <= size:
            raise Trouble(f"a range {start}..{end} of {size} bytes")
        file = os.open(at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            def is_same():
                status = os.fstat(file)
                state = (status.st_size, status.st_mtime_ns, tag_of(status))
                return stat.S_ISREG(status.st_mode) and state == (size, mtime, tag)
            if not is_same():
                wire.sock.sendall(frame(ANSWER, bytes([VOIDED]) + run(b"it is another file by now")))
                return
            wire.sock.sendall(frame(CONTENT))
            if self.once("cut"):
                raise Trouble("told to cut it")
            for block in payload(file, checksum, body.data, start, end, has_holes, start < end and self.once("damage")):
                wire.sock.sendall(block)
            wire.sock.sendall(bytes([SAME if is_same() and not self.once("void") else VOID]))
        finally:
            os.close(file)


# --- Frames -------------------------------------------------------------------------------------


def frames():
    """Those of the golden file, in its order: first requests, then replies. The types of both tell them apart."""
    def counting(first, count):
        return bytes(range(first, first + count))

    mtime, early, tag = 1_700_000_000 * 10**9 + 5, -1, counting(0, 16)
    x = an_entry(b"x", FILE, mtime, 0o644, 3, tag, 1)
    rich = an_entry(b"a", HOLED, early, 0o640, 600_000, tag, 2, owner=(1000, 100), xattrs=[(b"user.x", b"y")])
    of_x = read_body(b"x", x, 0, 3)
    yield frame(OPEN, counting(0, 32) + struct.pack(">HB", BROWSE, 0) + run(b"/out") + b"\0")
    yield frame(READ, read_body(b"a/b", rich, 262_144, 600_000))
    yield frame(READ, of_x)
    yield bytes([DATA]) + b"hi\n" + block_digest(1, of_x, 0, b"hi\n") + bytes([SAME])
    yield frame(READ, read_body(b"", x, 0, 3))
    yield frame(LIST, bytes([0]) + run(b"a"))
    yield frame(LIST, bytes([ITSELF | OWNED | EXTENDED]) + run(b""))
    yield frame(REMOVE, run(b"x") + bytes([0]))
    yield frame(REMOVE, run(b"a") + bytes([1]))
    yield frame(RENAME, run(b"x") + run(b"a/y"))
    yield frame(MAKE_DIRECTORY, run(b"a/n") + bytes([0]))
    yield frame(MAKE_DIRECTORY, run(b"a/n") + bytes([1]))
    yield frame(SUM, run(b"x") + bytes([1]))
    yield frame(SUM, run(b"") + bytes([2]))
    yield frame(SPACE)
    yield frame(CHANGE_PASSWORD, run(b"pw") + run(b"new pw"))
    yield frame(OPEN, counting(0, 32) + struct.pack(">HB", PASS_ON, 0) + run(b"") + b"\0")
    yield frame(RELAY, run(b"example.net:9000"))
    yield frame(RELAY, run(b"[2001:db8::7]:9000"))
    d = an_entry(b"d", FOLDER, mtime, 0o755)
    link = an_entry(b"l", SYMLINK, mtime, 0o777, target=b"../x")
    pipe = an_entry(b"p", SPECIAL, early, 0o600)
    yield page(False, [d, link, x, rich, pipe])
    yield page(True, [])
    yield page(True, [x._replace(name=b"")])
    yield frame(CONTENT)
    yield frame(SUMMED, run(counting(0, 16)))
    yield frame(ROOM, struct.pack(">B6Q", 1, 1, 2, 3, M64, 5, 6))
    yield frame(ROOM, struct.pack(">B6Q", 0, 0, 0, 0, 0, 5, 6))


def main():
    parser = argparse.ArgumentParser(description="An independent peer of wire protocol v2: trees.", allow_abbrev=False)
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("frames", allow_abbrev=False)
    for mode in ("list", "fetch", "act"):
        option = modes.add_parser(mode, allow_abbrev=False).add_argument
        option("--host", default="127.0.0.1")
        option("--port", type=int, required=True)
        option("--dir", type=os.fsencode, default=b"/", help="the job's folder, or file")
        option("--checksum", type=int, default=1, help="0 none, 1 XXH3")
        if mode == "list":
            option("--itself", action="store_true")
            option("path", type=os.fsencode, nargs="?", default=b"")
        elif mode == "fetch":
            option("--into", required=True)
            option("--length", type=positive, default=4194304, help="bytes of a range")
            option("--connections", type=positive, default=2)
            option("--ahead", type=positive, default=WINDOW, metavar="K", help="reads unanswered on each connection")
        else:
            option("act")
            option("arguments", type=os.fsencode, nargs="*")
    option = modes.add_parser("serve", allow_abbrev=False).add_argument
    option("folder")
    option("--port", type=int, default=0)
    option("--log", metavar="FILE", help="append one JSON line a request")
    option("--page", type=positive, default=PAGE_MAX, metavar="N", help="names in a page")
    option("--damage", type=int, default=0, metavar="N", help="alter a block of the first N reads")
    option("--void", type=int, default=0, metavar="N", help="end the first N reads in void")
    option("--cut", type=int, default=0, metavar="N", help="close in place of the first N payloads")
    options = parser.parse_args()
    try:
        if options.mode == "frames":
            for some in frames():
                print(some.hex())
            return 0
        if options.mode == "serve":
            return Server(options).run()
        client = Client(options)
        return {"list": client.show, "fetch": client.fetch, "act": client.act}[options.mode]()
    except (Trouble, Closed, OSError, ValueError) as error:
        return str(error) or repr(error)  # sys.exit prints it on stderr and exits 1


if __name__ == "__main__":
    sys.exit(main())
