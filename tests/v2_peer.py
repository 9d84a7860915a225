#!/usr/bin/env python3
"""A small, independent speaker of wire protocol v2: the outside judge of the integration tests.

    v2_peer.py send ...   a v2 sender, in clear or in TLS; one JSON line on stdout for each reply
    v2_peer.py recv ...   a v2 receiver in clear, with faults on request and a log of the requests it saw
    v2_peer.py hash ...   XXH3 of so many of stdin's bytes, with a seed

It was written from docs/PROTOCOL.md alone and shares no code with the programs it judges, XXH3 included.
It is literal on purpose: what the description does not allow is an error here, never something to be guessed at.
Of the checksums it has `none` and XXH3. Standard library only, Python 3.11 or later.
"""
import argparse
import base64
import collections
import hashlib
import json
import os
import queue
import secrets
import signal
import socket
import ssl
import stat
import struct
import sys
import threading
import time

MAGIC = b"\x8fPTF"
BLOCK = 65536
BODY_MAX = 131072
WINDOW = 256
HAVE_MAX = 512
PATIENCE = 30.0  # seconds to wait on a silent peer: a test has to end, even a failing one
LOGIN = 10.0

HELLO, OPEN, JOIN, PUT, HAVE, DESCRIBE, FINISH = range(1, 8)
WELCOME, OPENED, ANSWER, HAD, MISSING, FINISHED, HEARTBEAT, REFUSED, WANTED = range(0x81, 0x8A)
NAMES = {HELLO: "hello", OPEN: "open", JOIN: "join", PUT: "put", HAVE: "have", DESCRIBE: "describe", FINISH: "finish"}
SPARSE, OWNED, EXTENDED = 1, 2, 4
KEEP, SYNC, DRY = 1, 2, 4
DATA, HOLE, VOID, SAME = 0x11, 0x22, 0x44, 0x88
STATUS = ["stored", "published", "had", "mismatched", "voided", "refused"]
STORED, PUBLISHED, TAKEN, MISMATCHED, VOIDED, DENIED = range(6)


class Closed(Exception):
    """The other side closed; args[0] says how far into the wanted bytes."""


class Trouble(Exception):
    """Something that ends the sender, or one connection of the receiver; the text says what."""


# --- XXH3 ---------------------------------------------------------------------------------------

M64 = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")


def r32(data, at):
    return int.from_bytes(data[at:at + 4], "little")


def r64(data, at):
    return int.from_bytes(data[at:at + 8], "little")


def rotl(value, count, bits=64):
    return ((value << count) | (value >> (bits - count))) & ((1 << bits) - 1)


def swap(value, size):
    return int.from_bytes(value.to_bytes(size, "little"), "big")


def fold(a, b):
    product = a * b
    return (product ^ (product >> 64)) & M64


def avalanche(value):
    value = ((value ^ (value >> 37)) * MX1) & M64
    return value ^ (value >> 32)


def avalanche_64(value):
    value = ((value ^ (value >> 33)) * P2) & M64
    value = ((value ^ (value >> 29)) * P3) & M64
    return value ^ (value >> 32)


def mix16(data, at, secret_at, seed):
    return fold(r64(data, at) ^ ((r64(SECRET, secret_at) + seed) & M64),
                r64(data, at + 8) ^ ((r64(SECRET, secret_at + 8) - seed) & M64))


def combined(data):
    size = len(data)
    return data[0] << 16 | data[size >> 1] << 24 | data[-1] | size << 8


def accumulate(data, seed):
    """The eight accumulators of a long input, and the secret that the seed makes."""
    secret = b"".join(
        struct.pack("<QQ", (r64(SECRET, at) + seed) & M64, (r64(SECRET, at + 8) - seed) & M64) for at in range(0, 192, 16))
    keys = [struct.unpack_from("<8Q", secret, at) for at in range(0, 129, 8)]  # [16] is for the scramble
    acc = [P32_3, P1, P2, P3, P4, P32_2, P5, P32_1]
    low = 0xFFFFFFFF

    def stripe(at, key):
        a, b, c, d, e, f, g, h = struct.unpack_from("<8Q", data, at)
        ka, kb, kc, kd, ke, kf, kg, kh = a ^ key[0], b ^ key[1], c ^ key[2], d ^ key[3], e ^ key[4], f ^ key[5], g ^ key[6], h ^ key[7]
        acc[0] += b + (ka & low) * (ka >> 32)
        acc[1] += a + (kb & low) * (kb >> 32)
        acc[2] += d + (kc & low) * (kc >> 32)
        acc[3] += c + (kd & low) * (kd >> 32)
        acc[4] += f + (ke & low) * (ke >> 32)
        acc[5] += e + (kf & low) * (kf >> 32)
        acc[6] += h + (kg & low) * (kg >> 32)
        acc[7] += g + (kh & low) * (kh >> 32)

    blocks, rest = divmod(len(data) - 1, 1024)
    for block in range(blocks):
        for index in range(16):
            stripe(block * 1024 + index * 64, keys[index])
        for lane in range(8):
            value = acc[lane] & M64
            acc[lane] = ((value ^ (value >> 47) ^ keys[16][lane]) * P32_1) & M64
    for index in range(rest // 64):
        stripe(blocks * 1024 + index * 64, keys[index])
    stripe(len(data) - 64, struct.unpack_from("<8Q", secret, 192 - 64 - 7))
    return [value & M64 for value in acc], secret


def merge(acc, secret, at, start):
    result = start
    for pair in range(4):
        result += fold(acc[2 * pair] ^ r64(secret, at + 16 * pair), acc[2 * pair + 1] ^ r64(secret, at + 16 * pair + 8))
    return avalanche(result & M64)


def xxh3_64(data, seed=0):
    size = len(data)
    if size == 0:
        return avalanche_64(seed ^ r64(SECRET, 56) ^ r64(SECRET, 64))
    if size <= 3:
        return avalanche_64(combined(data) ^ (((r32(SECRET, 0) ^ r32(SECRET, 4)) + seed) & M64))
    if size <= 8:
        seed ^= swap(seed & 0xFFFFFFFF, 4) << 32
        value = (r32(data, size - 4) + (r32(data, 0) << 32)) ^ (((r64(SECRET, 8) ^ r64(SECRET, 16)) - seed) & M64)
        value ^= rotl(value, 49) ^ rotl(value, 24)
        value = (value * MX2) & M64
        value ^= (value >> 35) + size
        value = (value * MX2) & M64
        return value ^ (value >> 28)
    if size <= 16:
        low = r64(data, 0) ^ (((r64(SECRET, 24) ^ r64(SECRET, 32)) + seed) & M64)
        high = r64(data, size - 8) ^ (((r64(SECRET, 40) ^ r64(SECRET, 48)) - seed) & M64)
        return avalanche((size + swap(low, 8) + high + fold(low, high)) & M64)
    if size <= 128:
        acc = size * P1
        for step in range((size - 1) // 32, -1, -1):
            acc += mix16(data, 16 * step, 32 * step, seed) + mix16(data, size - 16 * (step + 1), 32 * step + 16, seed)
        return avalanche(acc & M64)
    if size <= 240:
        acc = avalanche((size * P1 + sum(mix16(data, 16 * step, 16 * step, seed) for step in range(8))) & M64)
        for step in range(8, size // 16):
            acc += mix16(data, 16 * step, 16 * (step - 8) + 3, seed)
        return avalanche((acc + mix16(data, size - 16, 136 - 17, seed)) & M64)
    acc, secret = accumulate(data, seed)
    return merge(acc, secret, 11, size * P1 & M64)


def xxh3_128(data, seed=0):
    size = len(data)
    if size == 0:
        low, high = (avalanche_64(seed ^ r64(SECRET, at) ^ r64(SECRET, at + 8)) for at in (64, 80))
    elif size <= 3:
        value = combined(data)
        other = rotl(swap(value, 4), 13, 32)
        low = avalanche_64(value ^ (((r32(SECRET, 0) ^ r32(SECRET, 4)) + seed) & M64))
        high = avalanche_64(other ^ (((r32(SECRET, 8) ^ r32(SECRET, 12)) - seed) & M64))
    elif size <= 8:
        seed ^= swap(seed & 0xFFFFFFFF, 4) << 32
        value = (r32(data, 0) + (r32(data, size - 4) << 32)) ^ (((r64(SECRET, 16) ^ r64(SECRET, 24)) + seed) & M64)
        product = value * (P1 + (size << 2))
        low, high = product & M64, (product >> 64) & M64
        high = (high + (low << 1)) & M64
        low ^= high >> 3
        low = ((low ^ (low >> 35)) * MX2) & M64
        low ^= low >> 28
        high = avalanche(high)
    elif size <= 16:
        flip_low = ((r64(SECRET, 32) ^ r64(SECRET, 40)) - seed) & M64
        flip_high = ((r64(SECRET, 48) ^ r64(SECRET, 56)) + seed) & M64
        first, last = r64(data, 0), r64(data, size - 8)
        product = (first ^ last ^ flip_low) * P1
        low, high = ((product & M64) + ((size - 1) << 54)) & M64, product >> 64
        last ^= flip_high
        high = (high + last + (last & 0xFFFFFFFF) * (P32_2 - 1)) & M64
        low ^= swap(high, 8)
        product = low * P2
        low, high = avalanche(product & M64), avalanche(((product >> 64) + high * P2) & M64)
    elif size <= 240:
        low, high = size * P1 & M64, 0

        def mix32(one, two, at, seed):
            nonlocal low, high
            low = ((low + mix16(data, one, at, seed)) ^ (r64(data, two) + r64(data, two + 8))) & M64
            high = ((high + mix16(data, two, at + 16, seed)) ^ (r64(data, one) + r64(data, one + 8))) & M64

        if size <= 128:
            for step in range((size - 1) // 32, -1, -1):
                mix32(16 * step, size - 16 * (step + 1), 32 * step, seed)
        else:
            for at in range(0, 128, 32):
                mix32(at, at + 16, at, seed)
            low, high = avalanche(low), avalanche(high)
            for at in range(128, size - 31, 32):
                mix32(at, at + 16, at - 128 + 3, seed)
            mix32(size - 16, size - 32, 136 - 17 - 16, -seed & M64)
        low, high = ((low + high) & M64, (low * P1 + high * P4 + (size - seed) * P2) & M64)
        low, high = avalanche(low), -avalanche(high) & M64
    else:
        acc, secret = accumulate(data, seed)
        low = merge(acc, secret, 11, size * P1 & M64)
        high = merge(acc, secret, 192 - 64 - 11, ~(size * P2) & M64)
    return high << 64 | low


assert xxh3_64(b"") == 0x2D06800538D394C2 and xxh3_128(b"") == 0x99AA06D3014798D86001C324468D497F

# --- Frames -------------------------------------------------------------------------------------


def run(data):
    return struct.pack(">H", len(data)) + data


def a_time(nanoseconds):
    return struct.pack(">qI", *divmod(nanoseconds, 10**9))


def frame(kind, body=b""):
    head = struct.pack(">I", kind << 24 | len(body))
    guard = head[0] ^ head[1] ^ head[2] ^ head[3] ^ 0x5A
    return head + bytes([guard]) + body + struct.pack(">I", xxh3_64(body, kind) & 0xFFFFFFFF)


class Body:
    """The fields of a body, taken one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        if self.at + count > len(self.data):
            raise Trouble("a body is too short")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, size):
        return int.from_bytes(self.bytes(size), "big")

    def run(self):
        return self.bytes(self.number(2))

    def time(self):
        seconds, nanoseconds = struct.unpack(">qI", self.bytes(12))
        if nanoseconds >= 10**9:
            raise Trouble("a time of more than a second's nanoseconds")
        return seconds * 10**9 + nanoseconds

    def path(self, may_be_empty=False):
        path = self.run()
        names = path.split(b"/")
        if path == b"" and may_be_empty:
            return path
        if len(path) > 4095 or b"\0" in path or any(name in (b"", b".", b"..") or len(name) > 255 for name in names):
            raise Trouble(f"not a path: {path!r}")
        if any(name.startswith(b".ptf-") for name in names):
            raise Trouble(f"a reserved name: {path!r}")
        return path

    def attributes(self, flags):
        """Only the mode is kept of them."""
        mode = self.number(2) & 0o777
        if flags & OWNED:
            self.bytes(8)
        if flags & EXTENDED:
            for _ in range(self.number(2)):
                self.run(), self.run()
        return mode

    def end(self):
        if self.at != len(self.data):
            raise Trouble("a body is too long")


class Wire:
    """One connection: bytes in order, and frames of them."""

    def __init__(self, sock):
        self.sock = sock
        self.taken = 0  # bytes, for a receiver that closes after so many

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.sock.recv(min(count - len(data), 65536))
            if not piece:
                raise Closed(len(data))
            data += piece
            self.taken += len(piece)
        return bytes(data)

    def read(self):
        """The next frame's type and body."""
        head = self.exactly(5)
        if head[0] ^ head[1] ^ head[2] ^ head[3] ^ 0x5A != head[4]:
            raise Trouble(f"a wrong guard: {head.hex()}")
        size = int.from_bytes(head[1:4], "big")
        if size > BODY_MAX:
            raise Trouble(f"a body of {size} bytes")
        body = self.exactly(size)
        if self.exactly(4) != struct.pack(">I", xxh3_64(body, head[0]) & 0xFFFFFFFF):
            raise Trouble("a wrong check")
        return head[0], Body(body)


def block_digest(checksum, put_body, offset, data, hole_len=0):
    """What follows the data of a block, or the length of a hole."""
    if checksum == 0:
        return b""
    place = struct.pack(">QQB", offset, hole_len or len(data), 1 if hole_len else 0)
    return xxh3_128(data, xxh3_64(place, xxh3_64(put_body))).to_bytes(16, "big")


def readable(data):
    return data.decode("utf-8", "backslashreplace")


# --- Sender -------------------------------------------------------------------------------------


class Sender:
    def __init__(self, options):
        self.options = options
        self.token = secrets.token_bytes(32)
        self.lock = threading.Lock()
        self.bad = 0

    def say(self, **record):
        with self.lock:
            print(json.dumps(record), flush=True)

    def connect(self):
        sock = socket.create_connection((self.options.host, self.options.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.options.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            sock = context.wrap_socket(sock)
            digest = hashlib.sha256(sock.getpeercert(binary_form=True)).digest()
            self.say(op="key", fingerprint="SHA256:" + base64.b64encode(digest).decode().rstrip("="))
        wire = Wire(sock)
        sock.sendall(MAGIC + frame(HELLO, struct.pack(">BBQ", 2, 2, 0)))
        kind, body = self.reply(wire)
        if kind != WELCOME:
            raise Trouble(f"not a welcome but {kind:x}")
        version, features = body.number(1), body.number(8)
        body.end()
        if version != 2 or features != 0:
            raise Trouble(f"version {version}, features {features:x}")
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

    def answer(self, wire, **record):
        """An Answer; its status."""
        kind, body = self.reply(wire)
        if kind != ANSWER:
            raise Trouble(f"not an answer but {kind:x}")
        status, reason = body.number(1), body.run()
        body.end()
        if status >= len(STATUS) or len(reason) > 180:
            raise Trouble(f"status {status}, a reason of {len(reason)} bytes")
        self.say(**record, status=STATUS[status], reason=reason.decode())
        return status

    def open(self):
        wire = self.connect()
        flags = SYNC if self.options.sync else 0
        body = self.token + struct.pack(">HB", flags, self.options.checksum) + run(self.options.remote_dir) + b"\0"
        wire.sock.sendall(frame(OPEN, body))
        kind, body = self.reply(wire)
        if kind != OPENED:
            raise Trouble(f"not opened but {kind:x}")
        is_new, was_open, folder = body.number(1), body.number(1), body.run()
        body.end()
        self.say(op="open", new=is_new, again=was_open, folder=readable(folder))
        return wire

    def survey(self):
        """Descriptions (folders before what is in them) and files: (path at the receiver, local path)."""
        top = self.options.file
        if not os.path.isdir(top):
            return [], [(os.path.basename(top), top)]
        descriptions, files, names = [(b"", top, b"")], [], {}
        for folder, below, within in os.walk(top):
            below.sort()
            for name in sorted(below + within):
                local = os.path.join(folder, name)
                path = os.path.relpath(local, top)
                status = os.lstat(local)
                if stat.S_ISREG(status.st_mode):
                    first = names.setdefault((status.st_dev, status.st_ino), path)
                    if first == path:
                        files.append((path, local))
                    else:
                        descriptions.append((path, local, first))
                else:
                    descriptions.append((path, local, b""))
        return descriptions, files

    def describe(self, path, local, first):
        status = os.lstat(local)
        body = bytes([0]) + run(path)
        if first:
            body += bytes([2]) + run(first)
        elif stat.S_ISLNK(status.st_mode):
            body += bytes([1]) + a_time(status.st_mtime_ns) + run(os.readlink(local))
        else:
            body += bytes([0]) + a_time(status.st_mtime_ns)
        return frame(DESCRIBE, body + struct.pack(">H", status.st_mode & 0o777))

    def put_body(self, path, local, start, end):
        status = os.stat(local)
        flags = SPARSE if status.st_blocks * 512 < status.st_size else 0
        tag = hashlib.sha256(struct.pack(">QQq", status.st_dev, status.st_ino, status.st_ctime_ns)).digest()[:16]
        return (struct.pack(">BQ", flags, status.st_size) + a_time(status.st_mtime_ns) + tag + struct.pack(">QQ", start, end)
                + run(path) + struct.pack(">H", status.st_mode & 0o777))

    def payload(self, local, body, start, end):
        """The blocks of a range: data where there is data, holes elsewhere."""
        pieces, at = [], start
        with open(local, "rb") as file:
            while at < end:
                try:
                    data_at = min(os.lseek(file.fileno(), at, os.SEEK_DATA), end)
                except OSError:  # no data from here on
                    data_at = end
                if data_at > at:
                    digest = block_digest(self.options.checksum, body, at, b"", data_at - at)
                    pieces.append(struct.pack(">BQ", HOLE, data_at - at) + digest)
                    at = data_at
                    continue
                stop = min(at - at % BLOCK + BLOCK, end)
                data = os.pread(file.fileno(), stop - at, at)
                if len(data) != stop - at:
                    raise Trouble(f"{readable(local)} changed while it was read")
                pieces.append(bytes([DATA]) + data + block_digest(self.options.checksum, body, at, data))
                at = stop
        return b"".join(pieces) + bytes([VOID if self.options.void else SAME])

    def have(self, wire, files):
        """Those of the files that are not there."""
        lacking = []
        for at in range(0, len(files), HAVE_MAX):
            batch = files[at:at + HAVE_MAX]
            body = struct.pack(">H", len(batch))
            for path, local in batch:
                status = os.stat(local)
                body += struct.pack(">BQ", 0, status.st_size) + a_time(status.st_mtime_ns) + run(path)
                body += struct.pack(">H", status.st_mode & 0o777)
            wire.sock.sendall(frame(HAVE, body))
            kind, reply = self.reply(wire)
            count = reply.number(2)
            bits = reply.bytes((count + 7) // 8)
            reply.end()
            if kind != HAD or count != len(batch):
                raise Trouble(f"not {len(batch)} bits but {count} in {kind:x}")
            had = [bits[index // 8] >> index % 8 & 1 for index in range(count)]
            self.say(op="have", count=count, had=sum(had))
            lacking += [file for file, bit in zip(batch, had) if not bit]
        return lacking

    def work(self, items):
        """One data connection: takes ranges until there are none, with at most `ahead` of them unanswered."""
        wire = self.connect()
        wire.sock.sendall(frame(JOIN, self.token))
        if self.answer(wire, op="join") != STORED:
            raise Trouble("not let in")
        unanswered = collections.deque()
        while True:
            try:
                item = items.get_nowait()
            except queue.Empty:
                item = None
            if item:
                path, local, start, end, _ = item
                body = self.put_body(path, local, start, end)
                wire.sock.sendall(frame(PUT, body) + self.payload(local, body, start, end))
                unanswered.append(item)
            if not unanswered:
                return
            if item is None or len(unanswered) >= self.options.ahead:
                path, local, start, end, tries = unanswered.popleft()
                status = self.answer(wire, op="put", path=readable(path), start=start, end=end)
                if status == MISMATCHED and tries < 2:
                    items.put((path, local, start, end, tries + 1))
                elif status > TAKEN:
                    with self.lock:
                        self.bad += 1

    def finish(self, wire):
        wire.sock.sendall(frame(FINISH))
        missing = 0
        while True:
            kind, body = self.reply(wire)
            if kind == MISSING:
                path, reason = body.path(may_be_empty=True), body.run()
                missing += 1
                self.say(op="missing", path=readable(path), reason=reason.decode())
            elif kind == FINISHED:
                names = "files", "bytes", "folders", "links", "missing", "waited", "digested", "stored"
                totals = {name: body.number(8) for name in names}
                self.say(op="finished", **totals)
                if totals["missing"] != missing:
                    raise Trouble(f"{missing} were named")
            else:
                raise Trouble(f"not the end but {kind:x}")
            body.end()
            if kind == FINISHED:
                return missing

    def run(self):
        wire = self.open()
        descriptions, files = self.survey()
        for batch in range(0, len(descriptions), WINDOW):
            some = descriptions[batch:batch + WINDOW]
            wire.sock.sendall(b"".join(self.describe(*entry) for entry in some))
            for path, _, _ in some:
                if self.answer(wire, op="describe", path=readable(path)) != STORED:
                    self.bad += 1
        if self.options.have:
            files = self.have(wire, files)
        items, results = queue.SimpleQueue(), queue.SimpleQueue()
        for path, local in files:
            size = os.path.getsize(local)
            for start in range(0, max(size, 1), self.options.length):
                if start != self.options.leave_out:
                    items.put((path, local, start, min(start + self.options.length, size), 0))

        def work():
            try:
                results.put(self.work(items))
            except Exception as error:  # every thread must report, or the wait below never ends
                results.put(error)

        for _ in range(self.options.connections):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(self.options.connections):
            error = results.get()
            if error:
                raise error
        missing = self.finish(wire)
        return 3 if missing or self.bad else 0


# --- Receiver -----------------------------------------------------------------------------------


class Incoming:
    def __init__(self, size):
        self.data, self.have = bytearray(size), set()


class Receiver:
    def __init__(self, options):
        self.options = options
        self.changed = threading.Condition()  # guards all below
        self.job = None  # token, checksum, folder
        self.incoming, self.published, self.later = {}, {}, []
        self.faults = 0
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
            self.log(conn=number, op="connect")
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

    def fault(self, wire, request):
        """Does what it was told to do in place of the reply to this request; true if it was."""
        options, kind = self.options, self.options.fault
        if kind is None or NAMES[request] != options.at:
            return False
        with self.changed:
            self.faults += 1
            if self.faults > options.times:
                return False
        send = wire.sock.sendall
        if kind == "silent":
            threading.Event().wait()  # for ever; this frame on the stack keeps the socket open
        if kind == "close":
            raise Trouble("told to close")
        if kind == "refused":
            send(frame(REFUSED, run(b"told to refuse")))
            wire.sock.shutdown(socket.SHUT_WR)
            while wire.sock.recv(65536):
                pass
            raise Trouble("told to refuse")
        if kind == "heartbeats":
            while True:
                send(frame(HEARTBEAT))
                time.sleep(options.pause)
        send({
            "version": lambda: frame(WELCOME, struct.pack(">BQ", 3, 0)),
            "features": lambda: frame(WELCOME, struct.pack(">BQ", 2, M64)),
            "mismatched": lambda: frame(ANSWER, bytes([MISMATCHED]) + run(b"")),
            "voided": lambda: frame(ANSWER, bytes([VOIDED]) + run(b"")),
            "denied": lambda: frame(ANSWER, bytes([DENIED]) + run(b"told to deny")),
            "status": lambda: frame(ANSWER, bytes([99]) + run(b"")),
            "turn": lambda: frame(HAD, struct.pack(">HB", 1, 1)) if request != HAVE else frame(ANSWER, bytes([0]) + run(b"")),
            "twice": lambda: 2 * frame(ANSWER, bytes([PUBLISHED]) + run(b"")),
            "oversized": lambda: b"\x83\xff\xff\xff" + bytes([0x83 ^ 0xFF ^ 0x5A]) + bytes(100_000),
            "huge": lambda: frame(ANSWER, bytes([0]) + run(bytes(60_000))),
            "garbage": lambda: secrets.token_bytes(65536),
            "check": lambda: frame(ANSWER, bytes([0]) + run(b""))[:-1] + b"\0",
            "guard": lambda: b"\x83\0\0\3\0\0\0\0\0\0\0\0",
            "request": lambda: frame(PUT, b""),
            "missing": lambda: frame(MISSING, run(b"gone") + run(b"told to miss it")) + self.totals(1),
            "missing_for_ever": lambda: b"",
            "cut": lambda: frame(ANSWER, bytes([0]) + run(b""))[:6],
            "lie": lambda: self.totals(0),
        }[kind]())
        if kind == "missing_for_ever":
            while True:
                send(frame(MISSING, run(b"gone") + run(b"told to miss it")))
                time.sleep(options.pause)
        if kind == "cut":
            raise Trouble("told to cut it")
        return True

    def totals(self, missing):
        return frame(FINISHED, struct.pack(">8Q", len(self.published), 0, 0, 0, missing, 0, 0, 0))

    def converse(self, wire, number):
        if wire.exactly(4) != MAGIC:
            raise Trouble("not the greeting of version 2")
        is_in = greeted = False
        while True:
            kind, body = wire.read()
            if kind not in NAMES:
                raise Trouble(f"unknown type {kind:x}")
            if (kind == HELLO) == greeted or (kind in (OPEN, JOIN)) == is_in and kind != HELLO:
                raise Trouble(f"{NAMES[kind]} out of turn")
            record = {}
            if kind == HELLO:
                greeted = True
                low, high, _ = body.number(1), body.number(1), body.number(8)
                if not low <= 2 <= high:
                    raise Trouble(f"versions {low} to {high}")
                reply = frame(WELCOME, struct.pack(">BQ", 2, 0))
            elif kind == OPEN:
                is_in, reply = True, self.open(body)
            elif kind == JOIN:
                is_in, reply = True, self.join(body)
            elif kind == PUT:
                reply, record = self.put(wire, body)
            elif kind == HAVE:
                reply = self.have(body)
            elif kind == DESCRIBE:
                reply, record = self.describe(body)
            else:
                self.log(conn=number, op="finish")
                if not self.fault(wire, kind):
                    wire.sock.sendall(self.finish())
                continue
            body.end()
            self.log(conn=number, op=NAMES[kind], **record)
            if self.options.close_after and wire.taken >= self.options.close_after:
                raise Trouble("told to close")
            if not self.fault(wire, kind):
                wire.sock.sendall(reply)

    def open(self, body):
        token, flags, checksum, folder = body.bytes(32), body.number(2), body.number(1), body.run()
        credential = body.number(1)
        if credential:
            body.bytes(32)
        if checksum > 1 or flags & DRY or len(folder) > 8192:
            raise Trouble("a job that this receiver does not do")
        path = os.path.join(os.fsencode(self.options.folder), folder.lstrip(b"/"))
        is_new = not os.path.isdir(path)
        os.makedirs(path, exist_ok=True)
        with self.changed:
            again = self.job is not None and self.job[0] == token
            self.job = token, checksum, path
            self.changed.notify_all()
        return frame(OPENED, bytes([is_new, again]) + run(path))

    def join(self, body):
        token = body.bytes(32)
        with self.changed:
            if not self.changed.wait_for(lambda: self.job and self.job[0] == token, LOGIN):
                return frame(REFUSED, run(b"no such job"))
        return frame(ANSWER, bytes([STORED]) + run(b""))

    def put(self, wire, body):
        """Reads the payload to its end, whatever it is, so that the next frame is found."""
        flags, size, mtime, tag = body.number(1), body.number(8), body.time(), body.bytes(16)
        start, end, path = body.number(8), body.number(8), body.path()
        mode = body.attributes(flags)
        if not start <= end <= size:
            raise Trouble(f"a range {start}..{end} of {size} bytes")
        checksum, at, pieces, is_good = self.job[1], start, [], True
        while at < end:
            mark = wire.exactly(1)[0]
            if mark == VOID:
                break
            if mark == HOLE:
                length = int.from_bytes(wire.exactly(8), "big")
                data, digest = b"", block_digest(checksum, body.data, at, b"", length)
                if not 0 < length <= end - at:
                    raise Trouble(f"a hole of {length} bytes")
            elif mark == DATA:
                length = min(BLOCK - at % BLOCK, end - at)
                data = wire.exactly(length)
                digest = block_digest(checksum, body.data, at, data)
            else:
                raise Trouble(f"mark {mark:x}")
            is_good &= wire.exactly(len(digest)) == digest
            pieces.append((at, data))
            at += length
        else:
            mark = wire.exactly(1)[0]
            if mark not in (VOID, SAME):
                raise Trouble(f"mark {mark:x} at the end of a range")
        status = VOIDED if mark == VOID else self.store(path, size, mtime, tag, mode, start, end, pieces) if is_good else MISMATCHED
        record = dict(path=readable(path), start=start, end=end, size=size, status=STATUS[status])
        if status == STORED and start == end:
            gaps = self.gaps(path, size, mtime, tag)
            body = struct.pack(">QH", sum(two - one for one, two in gaps), len(gaps[:10]))
            return frame(WANTED, body + b"".join(struct.pack(">QQ", *gap) for gap in gaps[:10])), record
        return frame(ANSWER, bytes([status]) + run(b"")), record

    def gaps(self, path, size, mtime, tag):
        with self.changed:
            at, gaps = 0, []
            for one, two in sorted(self.incoming[path, size, mtime, tag].have) + [(size, size)]:
                if one > at:
                    gaps.append((at, one))
                at = max(at, two)
            return gaps

    def store(self, path, size, mtime, tag, mode, start, end, pieces):
        with self.changed:
            if self.published.get(path) == (size, mtime):
                return TAKEN
            incoming = self.incoming.setdefault((path, size, mtime, tag), Incoming(size))
            for at, data in pieces:
                incoming.data[at:at + len(data)] = data
            incoming.have.add((start, end))
            at = 0
            for one, two in sorted(incoming.have):
                at = max(at, two) if one <= at else at
            if at < size:
                return STORED
            target = os.path.join(self.job[2], path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target + b".new", "wb") as file:
                file.write(incoming.data)
            os.chmod(target + b".new", mode)
            os.utime(target + b".new", ns=(mtime, mtime))
            os.rename(target + b".new", target)
            self.published[path] = size, mtime
            del self.incoming[path, size, mtime, tag]
            return PUBLISHED

    def have(self, body):
        bits = []
        for _ in range(body.number(2)):
            flags, size, mtime, path = body.number(1), body.number(8), body.time(), body.path()
            body.attributes(flags)
            try:
                status = os.lstat(os.path.join(self.job[2], path))
                bits.append(stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (size, mtime))
            except OSError:
                bits.append(False)
        if len(bits) > HAVE_MAX:
            raise Trouble(f"{len(bits)} files asked for at once")
        packed = bytearray((len(bits) + 7) // 8)
        for index, bit in enumerate(bits):
            packed[index // 8] |= bit << index % 8
        return frame(HAD, struct.pack(">H", len(bits)) + packed)

    def describe(self, body):
        flags, path, kind = body.number(1), body.path(may_be_empty=True), body.number(1)
        target = os.path.join(self.job[2], path)
        mtime = body.time() if kind in (0, 1) else None
        content = b"" if kind == 0 else body.run() if kind == 1 else body.path()
        mode = body.attributes(flags)
        if kind == 0:
            os.makedirs(target, exist_ok=True)
        elif kind > 2 or kind == 1 and not 1 <= len(content) <= 4095:
            raise Trouble(f"kind {kind}")
        with self.changed:
            self.later.append((kind, target, mtime, content, mode))
        return frame(ANSWER, bytes([STORED]) + run(b"")), dict(path=readable(path), kind=kind)

    def finish(self):
        with self.changed:
            for kind, target, mtime, content, _ in (entry for entry in self.later if entry[0]):
                if os.path.lexists(target):
                    os.unlink(target)
                if kind == 1:
                    os.symlink(content, target)
                    os.utime(target, ns=(mtime, mtime), follow_symlinks=False)
                else:
                    os.link(os.path.join(self.job[2], content), target)
            for kind, target, mtime, _, mode in reversed(self.later):
                if kind == 0:
                    os.chmod(target, mode)
                    os.utime(target, ns=(mtime, mtime))
            missing = [path for path, *_ in self.incoming]
            replies = b"".join(frame(MISSING, run(path) + run(b"not all of it came")) for path in missing)
            return replies + self.totals(len(missing))


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def main():
    parser = argparse.ArgumentParser(description="An independent peer of wire protocol v2.", allow_abbrev=False)
    modes = parser.add_subparsers(dest="mode", required=True)
    option = modes.add_parser("send", allow_abbrev=False).add_argument
    option("--host", required=True)
    option("--port", type=int, required=True)
    option("--file", type=os.fsencode, required=True, metavar="PATH")
    option("--remote_dir", type=os.fsencode, required=True, metavar="DIR")
    option("--tls", action="store_true")
    option("--checksum", type=int, default=1, help="0 none, 1 XXH3")
    option("--length", type=positive, default=4194304, help="bytes of a range")
    option("--connections", type=positive, default=2)
    option("--ahead", type=positive, default=16, metavar="K", help="puts unanswered on each connection")
    option("--have", action="store_true", help="ask first what is there")
    option("--sync", action="store_true")
    option("--void", action="store_true", help="say of each range that it does not count")
    option("--leave_out", type=int, default=-1, metavar="OFFSET", help="never send the range that starts there")
    option = modes.add_parser("recv", allow_abbrev=False).add_argument
    option("--port", type=int, default=0)
    option("--folder", default=".")
    option("--log", metavar="FILE", help="append one JSON line a request")
    option("--fault", help="what to do in place of a reply")
    option("--at", choices=NAMES.values(), default="put", help="to which request")
    option("--times", type=positive, default=1 << 40, metavar="N", help="to the first N of them")
    option("--pause", type=float, default=0.05, help="seconds between what is repeated for ever")
    option("--close_after", type=int, default=0, metavar="BYTES")
    option = modes.add_parser("hash", allow_abbrev=False).add_argument
    option("--seed", type=int, default=0)
    option("sizes", type=int, nargs="+")
    options = parser.parse_args()
    try:
        if options.mode == "recv":
            Receiver(options).run()
        if options.mode == "send":
            return Sender(options).run()
        data = sys.stdin.buffer.read()
        for size in options.sizes:
            print(f"{xxh3_64(data[:size], options.seed):016x} {xxh3_128(data[:size], options.seed):032x}")
        return 0
    except (Trouble, Closed, OSError, ValueError) as error:
        return str(error) or repr(error)  # sys.exit prints it on stderr and exits 1


if __name__ == "__main__":
    sys.exit(main())
