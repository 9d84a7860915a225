"""What a user would take instead: how each program is run between src and dst, with what a fresh install does.

Each peer is a function of a Job that gives the servers it needs, and the command that is timed. sshd and rsync's
daemon have keys, ports and configurations of their own.
"""
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass

SSH_PORT = 2222
RSYNC_PORT = 8730
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@dataclass
class Job:
    """From `source`, a file or a folder, into `target`, a folder that is not there yet or is empty."""

    place: str
    source: str
    target: str

    @property
    def is_file(self):
        return os.path.isfile(self.source)


@dataclass
class Plan:
    """Servers as (host, command, port); the command that is timed, and where it runs."""

    servers: list
    command: list
    host: str = "src"
    note: str = ""


def ssh(job, *hosts):
    """An sshd on each of these hosts, and the configuration that leads there."""
    folder = os.path.join(job.place, "ssh")
    path = lambda name: os.path.join(folder, name)
    user = pwd.getpwuid(os.geteuid()).pw_name
    if not os.path.exists(path("id")):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs("/run/sshd", exist_ok=True)
        for name in ("host", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path(name)], check=True)
        shutil.copy(path("id.pub"), path("authorized_keys"))
        with open(path("sshd_config"), "w") as file:
            file.write(
                f"Port {SSH_PORT}\nListenAddress 0.0.0.0\nHostKey {path('host')}\nAuthorizedKeysFile {path('authorized_keys')}\n"
                "PidFile none\nStrictModes no\nUsePAM no\nUseDNS no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
                "KbdInteractiveAuthentication no\nMaxStartups 200\nMaxSessions 200\nSubsystem sftp internal-sftp\n"
            )
        with open(path("config"), "w") as file:
            file.write(
                f"Host *\n  Port {SSH_PORT}\n  User {user}\n  IdentityFile {path('id')}\n  IdentitiesOnly yes\n"
                "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
            )
    servers = [(host, [SSHD, "-D", "-f", path("sshd_config")], SSH_PORT) for host in hosts]
    return servers, path("config"), f"port={SSH_PORT},user={user},key_file={path('id')}"


def scp(job):
    servers, config, _ = ssh(job, "dst")
    if job.is_file:
        os.makedirs(job.target)
        return Plan(servers, ["scp", "-q", "-F", config, job.source, f"dst:{job.target}/"])
    return Plan(servers, ["scp", "-q", "-r", "-F", config, job.source, f"dst:{job.target}"])


def rsync_ssh(job):
    servers, config, _ = ssh(job, "dst")
    flags = ["-W", "--inplace"] if job.is_file else []
    source = job.source if job.is_file else job.source + "/"
    return Plan(servers, ["rsync", "-a", *flags, "-e", f"ssh -F {config}", source, f"dst:{job.target}/"])


def rsync_daemon(job):
    config = os.path.join(job.place, "rsyncd.conf")
    with open(config, "w") as file:
        file.write(f"use chroot = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n[in]\npath = {job.target}\nread only = no\n")
    os.makedirs(job.target)
    flags = ["-W", "--inplace"] if job.is_file else []
    source = job.source if job.is_file else job.source + "/"
    server = ("dst", ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={RSYNC_PORT}"], RSYNC_PORT)
    return Plan([server], ["rsync", "-a", *flags, source, f"rsync://dst:{RSYNC_PORT}/in/"])


def rclone(job):
    rclone = ["rclone", "copy", "--config", "/dev/null"]
    if job.is_file:
        # Several streams are for what it fetches.
        servers, _, options = ssh(job, "src")
        streams = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "1M"]
        return Plan(servers, [*rclone, *streams, f":sftp,host=src,{options}:{job.source}", job.target], "dst", "fetched, 4 streams")
    servers, _, options = ssh(job, "dst")
    return Plan(servers, [*rclone, job.source, f":sftp,host=dst,{options}:{job.target}"])


# What is in tables and pictures, the programs that must be there, and how it is run.
PEERS = {
    "scp": ("scp", ["scp", "ssh-keygen", "sshd"], scp),
    "rsync_ssh": ("rsync over ssh", ["rsync", "ssh", "ssh-keygen", "sshd"], rsync_ssh),
    "rsync_daemon": ("rsync daemon, in clear", ["rsync"], rsync_daemon),
    "rclone": ("rclone, sftp", ["rclone", "ssh-keygen", "sshd"], rclone),
}


def missing(programs):
    """The first of these that is not installed."""
    found = {name: SSHD if name == "sshd" else shutil.which(name) for name in programs}
    return next((name for name, path in found.items() if not path), None)
