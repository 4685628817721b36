"""A real sshd on this machine, with its own keys, home folder and, where it must lie, commands."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

SSHD = "/usr/sbin/sshd"

needs_sshd = pytest.mark.skipif(
    not (os.path.exists(SSHD) and shutil.which("ssh") and shutil.which("ps")),
    reason="needs sshd, ssh and ps (Debian: openssh-server, openssh-client, procps)",
)


class Server:
    """sshd on a port of its own. What it runs has `home` for its home folder, and `commands` first in its PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.commands = folder / "commands"
        self.log = folder / "log"
        for new in (self.home, self.commands):
            new.mkdir()
        for key in ("host_key", "user_key", "other_key"):
            make_key(folder / key)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"SetEnv HOME={self.home} PATH={self.commands}:/usr/local/bin:/usr/bin:/bin\n"
        )
        self.know((folder / "host_key.pub").read_text())
        self.use_key("user_key")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "bfedge"

    @property
    def client(self) -> str:
        """For BFEDGE_SSH."""
        return f"ssh -F {self.folder}/ssh_config"

    def know(self, key: str) -> None:
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}" if key else "")

    def use_key(self, name: str) -> None:
        (self.folder / "ssh_config").write_text(
            f"Host *\nIdentityFile {self.folder}/{name}\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {self.folder}/known_hosts\nGlobalKnownHostsFile none\n"
        )

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd of root insists on it
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", f"{self.folder}/sshd_config", "-E", str(self.log)], start_new_session=True
        )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        pytest.fail("sshd does not start")

    def stop(self) -> None:
        """Kills the server and its connections; what they run finds its input closed."""
        if self.process:
            for child in connections_of(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, 9)
            self.process.kill()
            self.process.wait()
            self.process = None

    def replace_command(self, name: str, script: str) -> None:
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def connections(self) -> int:
        return self.log.read_text().count("Accepted publickey")


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20)


def connections_of(server: int) -> list[int]:
    """The processes of sshd below its first one."""
    output = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, timeout=20).stdout
    rows = [line.split(None, 2) for line in output.splitlines()]
    found = [server]
    for parent in found:
        found += [int(pid) for pid, its_parent, name in rows if int(its_parent) == parent and name.startswith("sshd")]
    return found[1:]
