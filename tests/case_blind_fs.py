"""A file system in memory that takes names differing in case for one, mounted over /dev/fuse.

    case_blind_fs.py FOLDER

Says one line when it is mounted; ends when it is unmounted. It keeps each name as it was first spelled,
as vfat does. No libraries: the kernel's requests are read and answered as they are.
"""
import errno
import os
import stat
import struct
import subprocess
import sys
import time

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKDIR, UNLINK, RMDIR, RENAME, LINK = 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29
CREATE, DESTROY, BATCH_FORGET, RENAME2 = 35, 38, 42, 45


class Node:
    def __init__(self, mode, above=None):
        self.mode, self.above, self.data, self.names, self.links = mode, above, bytearray(), {}, 1
        self.uid = self.gid = 0
        self.mtime = time.time_ns()


class Failed(Exception):
    pass


def name_in(body):
    return bytes(body).split(b"\0")[0]


class Blind:
    def __init__(self, fd):
        self.fd, self.nodes, self.next = fd, {1: Node(stat.S_IFDIR | 0o755)}, 2

    def attr(self, number):
        node = self.nodes[number]
        size, (seconds, nanos) = len(node.data), divmod(node.mtime, 10**9)
        return struct.pack(
            "<6Q10I", number, size, -(-size // 512), *[seconds & (2**64 - 1)] * 3, *[nanos] * 3,
            node.mode, node.links, node.uid, node.gid, 0, 4096, 0)

    def entry(self, number):
        # Nothing is remembered by the kernel: each name is asked for each time.
        return struct.pack("<4Q2I", number, 0, 0, 0, 0, 0) + self.attr(number)

    def find(self, folder, name):
        if name.lower() not in self.nodes[folder].names:
            raise Failed(errno.ENOENT)
        return self.nodes[folder].names[name.lower()][1]

    def add(self, folder, name, number):
        if name.lower() in self.nodes[folder].names:
            raise Failed(errno.EEXIST)
        self.nodes[folder].names[name.lower()] = (name, number)
        return self.entry(number)

    def new(self, folder, name, mode, uid, gid):
        self.nodes[self.next] = node = Node(mode)
        node.uid, node.gid = uid, gid
        self.next += 1
        return self.add(folder, name, self.next - 1)

    def rename(self, folder, target, old, new, flags):
        number = self.find(folder, old)
        there = self.nodes[target].names.get(new.lower())
        if there and flags & 1:
            raise Failed(errno.EEXIST)
        if there and stat.S_ISDIR(self.nodes[there[1]].mode):
            raise Failed(errno.EISDIR)
        del self.nodes[folder].names[old.lower()]
        # What is there lends its spelling.
        self.nodes[target].names[new.lower()] = (there[0] if there else new, number)
        return b""

    def list(self, folder, offset, size):
        entries = [(b".", folder), (b"..", 1), *self.nodes[folder].names.values()]
        listed = b""
        for place, (name, number) in list(enumerate(entries, 1))[offset:]:
            one = struct.pack("<2Q2I", number, place, len(name), self.nodes[number].mode >> 12) + name
            one += bytes(-len(one) % 8)
            if len(listed + one) > size:
                break
            listed += one
        return listed

    def set(self, number, body):
        valid, _, _, size, _, _, mtime, _, _, nanos, _, mode, _, uid, gid, _ = struct.unpack_from("<2I6Q8I", body)
        node = self.nodes[number]
        if valid & 1:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & 2:
            node.uid = uid
        if valid & 4:
            node.gid = gid
        if valid & 8:
            node.data = node.data[:size] + bytes(max(0, size - len(node.data)))
        if valid & 32:
            node.mtime = mtime * 10**9 + nanos
        return struct.pack("<Q2I", 0, 0, 0) + self.attr(number)

    def serve_one(self, code, node, uid, gid, body):
        if code == INIT:
            return struct.pack("<4I2H4I", 7, 31, 65536, 0, 8, 8, 65536, 1, 0, 0) + bytes(64 - 40)
        if code == LOOKUP:
            return self.entry(self.find(node, name_in(body)))
        if code == GETATTR:
            return struct.pack("<Q2I", 0, 0, 0) + self.attr(node)
        if code == SETATTR:
            return self.set(node, body)
        if code == MKDIR:
            mode, mask = struct.unpack_from("<2I", body)
            return self.new(node, name_in(body[8:]), stat.S_IFDIR | mode & ~mask, uid, gid)
        if code == SYMLINK:
            name, target = bytes(body).split(b"\0")[:2]
            entry = self.new(node, name, stat.S_IFLNK | 0o777, uid, gid)
            self.nodes[self.next - 1].data = bytearray(target)
            return entry
        if code == READLINK:
            return bytes(self.nodes[node].data)
        if code == CREATE:
            _, mode, mask, _ = struct.unpack_from("<4I", body)
            return self.new(node, name_in(body[16:]), stat.S_IFREG | mode & ~mask, uid, gid) + bytes(16)
        if code == LINK:
            old, = struct.unpack_from("<Q", body)
            self.nodes[old].links += 1
            return self.add(node, name_in(body[8:]), old)
        if code in (UNLINK, RMDIR):
            self.nodes[self.find(node, name_in(body))].links -= 1
            del self.nodes[node].names[name_in(body).lower()]
            return b""
        if code in (RENAME, RENAME2):
            target, = struct.unpack_from("<Q", body)
            flags, = struct.unpack_from("<I", body, 8) if code == RENAME2 else (0,)
            old, new = bytes(body[16 if code == RENAME2 else 8:]).split(b"\0")[:2]
            return self.rename(node, target, old, new, flags)
        if code in (OPEN, OPENDIR):
            return bytes(16)
        if code == READ:
            _, offset, size = struct.unpack_from("<2QI", body)
            return bytes(self.nodes[node].data[offset:offset + size])
        if code == READDIR:
            _, offset, size = struct.unpack_from("<2QI", body)
            return self.list(node, offset, size)
        if code == WRITE:
            _, offset, size = struct.unpack_from("<2QI", body)
            data = self.nodes[node].data
            data.extend(bytes(max(0, offset - len(data))))
            data[offset:offset + size] = body[40:40 + size]
            return struct.pack("<2I", size, 0)
        if code == STATFS:
            return struct.pack("<5Q4I", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096, 0) + bytes(24)
        if code in (RELEASE, RELEASEDIR, FSYNC, FLUSH, DESTROY):
            return b""
        raise Failed(errno.ENOSYS)

    def serve(self):
        while True:
            try:
                request = os.read(self.fd, 1 << 18)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return
            _, code, unique, node, uid, gid, _, _ = struct.unpack_from("<2I2Q4I", request)
            if code in (FORGET, BATCH_FORGET):
                continue
            error, answer = 0, b""
            try:
                answer = self.serve_one(code, node, uid, gid, memoryview(request)[40:])
            except Failed as failed:
                error = failed.args[0]
            try:
                os.write(self.fd, struct.pack("<IiQ", 16 + len(answer), -error, unique) + answer)
            except OSError:
                pass


fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "case_blind", sys.argv[1]], pass_fds=[fd], check=True)
print("mounted", flush=True)
Blind(fd).serve()
