"""Puts programs on a board over SSH, and runs them there.

OpenSSH's own client does it, so keys, ~/.ssh/config and known_hosts are the user's. It never asks: what would need a
password or a yes is an error with the way out. The variable BFEDGE_SSH replaces the command, as GIT_SSH_COMMAND does
for git: `BFEDGE_SSH="ssh -F board.conf -i board_key"`.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bfedge.device.exported import Exported, sha256
from bfedge.device.session import Session
from bfedge.device.transport import ProcessTransport, explain_ending, last_line
from bfedge.errors import BfedgeError

PROGRAM = "bfedge-device"
SSH_FAILED = 255
"""Exit status of ssh when it, and not the command, has failed"""
CONNECT_SECONDS = 10
PROBE_SECONDS = 60
SLOWEST_BYTES_PER_SECOND = 20_000
"""Of a line that is still worth waiting for"""

# A dead connection is noticed within 15 seconds. A shared connection is used, but none is left behind.
OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=no"),
)

# Arguments: the folder's name, then names of files. Lines that start with "bfedge " are for us: shells' start-up files
# may print others.
PROBE = """
for tool in uname df mkdir cat mv chmod rm sha256sum; do
  command -v $tool >/dev/null || echo "bfedge missing $tool"
done
folder=$HOME/.cache/bfedge/$1
shift
echo "bfedge machine $(uname -m)"
echo "bfedge folder $folder"
there=$folder
while [ ! -d "$there" ]; do there=${there%/*}; [ -n "$there" ] || there=/; done
df -Pk "$there" | { read -r header; read -r device size used free rest; echo "bfedge free $free"; }
for name; do
  sum=
  [ -f "$folder/$name" ] && sum=$(sha256sum <"$folder/$name")
  echo "bfedge sum ${sum%% *} $name"
done
"""

# Arguments: folder, name, SHA-256, mode. The contents come on stdin; the file gets its name when it is whole.
STORE = """
mkdir -p "$1" || exit 1
part=$1/.$2.$$.part
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT PIPE TERM
cat >"$part" || exit 1
sum=$(sha256sum <"$part") || exit 1
[ "${sum%% *}" = "$3" ] || { echo "bfedge differs"; exit 1; }
chmod "$4" "$part" && mv -f "$part" "$1/$2" && echo "bfedge stored"
"""

# Arguments: folder, program, its arguments. The shell stays, to report a signal as 128 and its number.
RUN = """
cd "$1" || exit 1
program=$2
shift 2
"./$program" "$@"
exit $?
"""

# What stderr says -> message and way out. The first ones are ssh's, with its exit status 255.
CONNECTION_FAILURES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{host} has another host key than the one in your known_hosts: another machine, or a new system on it",
        "if you know why, `ssh-keygen -R {name}` forgets the old key, then `ssh {host}` shows the new one",
    ),
    (
        "Host key verification failed",
        "the host key of {host} is not in your known_hosts",
        "`ssh {host}` once: it shows the key's fingerprint and asks",
    ),
    (
        "Permission denied (",
        "{host} does not let you in without a password",
        "`ssh-copy-id {host}` puts your public key there; `ssh-add` unlocks one that has a passphrase",
    ),
    ("Could not resolve hostname", "there is no host {name}", "check the name, or give the board's IP address"),
    ("Connection refused", "{host} refuses the connection", "is its SSH server running, and is the port right?"),
    ("timed out", "{host} does not answer", "is the board on, and on this network?"),
    ("No route to host", "{host} cannot be reached", "is the board on, and on this network?"),
    ("Network is unreachable", "{host} cannot be reached", "is this machine on the board's network?"),
)
DISK_FAILURES = (
    ("No space left on device", "the disk of {host} is full", "make room on the board"),
    ("Disk quota exceeded", "the disk quota on {host} is used up", "make room on the board"),
    ("Read-only file system", "the disk of {host} is read-only", "mount it writable"),
)


def deploy(host: str, name: str, files: dict[str, Path], machine: str | None) -> str:
    """Copies files into ~/.cache/bfedge/`name` on the board and returns that folder. `files`: by their name there;
    those that are there already are not sent. `machine`: as the board's `uname -m` must say, None for any.

    Raises BfedgeError, before anything is written, for another machine and for too little room; and if the board
    cannot be reached. A file has its name only when it is whole and its SHA-256 was compared on the board.
    """
    for part in (name, *files):
        if not re.fullmatch(r"[^/\0\n\r]{1,100}", part) or part.startswith("."):
            raise BfedgeError(f"`{part}` cannot be the name of a file on a board")
    sums = {there: sha256(path) for there, path in files.items()}
    facts = probe(host, name, list(files))
    if machine not in (None, facts.machine):
        raise BfedgeError(
            f"{host} is a {facts.machine}, the program is for {machine}", "choose the board's own --target"
        )
    wanted = [there for there in files if facts.sums.get(there) != sums[there]]
    needed = sum(files[there].stat().st_size for there in wanted)
    if wanted and facts.free_bytes is not None and facts.free_bytes < needed:
        raise BfedgeError(
            f"{host} has {facts.free_bytes:,} bytes free for {facts.folder}, {needed:,} are needed",
            "make room on the board",
        )
    for there in wanted:
        store(host, facts.folder, there, files[there], sums[there])
    return facts.folder


class Facts:
    """What the board said when it was probed."""

    def __init__(self, host: str, output: str) -> None:
        self.sums: dict[str, str] = {}
        self.free_bytes: int | None = None
        self.machine = self.folder = ""
        for line in output.splitlines():
            start, _, rest = line.partition(" ")
            word, _, value = rest.partition(" ")
            if start != "bfedge":
                continue
            if word == "missing":
                raise BfedgeError(f"{host} has no command `{value}`", "install it on the board")
            if word == "machine":
                self.machine = value
            elif word == "folder":
                self.folder = value
            elif word == "free" and value.isdecimal():
                self.free_bytes = int(value) * 1024
            elif word == "sum":
                digest, _, name = value.partition(" ")
                self.sums[name] = digest
        if not self.machine or not self.folder.startswith("/"):
            said = last_line(output)
            raise BfedgeError(
                f"{host} does not run commands as a shell does" + (f"; it says: {said}" if said else ""),
                f"does `ssh {host} uname -m` work?",
            )


def probe(host: str, name: str, files: Sequence[str]) -> Facts:
    return Facts(host, run_script(host, PROBE, [name, *files], PROBE_SECONDS))


def store(host: str, folder: str, name: str, path: Path, digest: str) -> None:
    """Sends one file. What was there under its name stays until all of it has arrived."""
    mode = "755" if os.access(path, os.X_OK) else "644"
    seconds = PROBE_SECONDS + path.stat().st_size / SLOWEST_BYTES_PER_SECOND
    said = run_script(host, STORE, [folder, name, digest, mode], seconds, path)
    if "bfedge stored" not in said.splitlines():
        raise BfedgeError(f"`{path}` arrived damaged on {host}", "try again")


def open_remote(
    host: str, folder: str, program: str, arguments: Sequence[str] = (), timeout: float | None = None
) -> Session:
    """Starts a program that `deploy` has put into `folder` and opens a session with it. `timeout` is the session's.

    Raises BfedgeError if there is no ssh; all else shows when the session asks something.
    """
    command = ssh_command(host, RUN, [folder, program, *arguments])
    transport = ProcessTransport(
        command, f"the board at {host}", lambda code, stderr: explain(host, program, code, stderr)
    )
    transport.if_silent = "is the board very slow, or the connection? --timeout gives it more time"
    return Session(transport, timeout=timeout)


def deploy_exported(host: str, exported: Exported) -> str:
    """Puts what `bfedge export` wrote for Linux on a board and returns the folder there, which is this model's own: who
    tries two models at once does not find them swapped.

    Raises BfedgeError, before anything else, if program or model are not those of the export's manifest.
    """
    exported.check(PROGRAM, exported.model.name)
    machine = exported.profile.cpu.machine
    folder = f"{exported.profile.name}-{exported.files[exported.model.name][:8]}"
    files = {PROGRAM: exported.folder / PROGRAM, exported.model.name: exported.model}
    return deploy(host, folder, files, platform.machine() if machine == "any" else machine)


def open_deployed(host: str, exported: Exported, timeout: float | None = None, options: Sequence[str] = ()) -> Session:
    """The same, and opens a session with the program, which is given the options."""
    return open_remote(host, deploy_exported(host, exported), PROGRAM, [*options, exported.model.name], timeout)


def run_script(host: str, script: str, arguments: Sequence[str], seconds: float, stdin: Path | None = None) -> str:
    """Runs a shell script on the board and returns what it printed. Raises BfedgeError if it fails."""
    command = ssh_command(host, script, arguments)
    try:
        with open(stdin or os.devnull, "rb") as source:
            result = subprocess.run(command, stdin=source, capture_output=True, timeout=seconds, start_new_session=True)
    except subprocess.TimeoutExpired:
        raise BfedgeError(f"{host} was not done after {seconds:.0f} s", "is the connection very slow?") from None
    except OSError as problem:
        raise BfedgeError(f"cannot start `{command[0]}`: {problem.strerror}") from None
    output = result.stdout.decode(errors="replace")
    if result.returncode and "bfedge differs" not in output:
        raise explain(host, "the shell", result.returncode, result.stderr.decode(errors="replace"))
    return output


def ssh_command(host: str, script: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a script on `host`, which is what ssh takes, or user@board:port. Raises BfedgeError if
    there is no ssh.
    """
    try:
        client = shlex.split(os.environ.get("BFEDGE_SSH") or "ssh")
    except ValueError as problem:
        raise BfedgeError(f"BFEDGE_SSH is no command: {problem}") from None
    if not client or shutil.which(client[0]) is None:
        raise BfedgeError(
            f"there is no ssh client `{' '.join(client)}`", "install OpenSSH's, on Debian: apt install openssh-client"
        )
    if not re.fullmatch(r"[^\s-]\S*", host):
        raise BfedgeError(f"`{host}` is no host", "user@board, user@board:port, or a name of ~/.ssh/config")
    port = re.fullmatch(r"([^:]+):(\d{1,5})", host)
    where = ["-p", port[2], "--", port[1]] if port else ["--", host]
    # The login shell may be any that knows single quotes (bash, ash, zsh, fish); it starts one that is certainly sh.
    return [*client, *OPTIONS, *where, "exec " + shlex.join(["sh", "-c", script, "sh", *arguments])]


def explain(host: str, program: str, code: int, stderr: str) -> BfedgeError:
    """What it means that ssh ended with this status: it could not connect, or the program on the board ended."""
    name = re.sub(r"^(ssh://)?([^@]*@)?", "", host).split(":")[0]
    for words, message, way_out in CONNECTION_FAILURES if code == SSH_FAILED else DISK_FAILURES:
        if words in stderr:
            return BfedgeError(message.format(host=host, name=name), way_out.format(host=host, name=name))
    said = last_line(stderr)
    if code == SSH_FAILED:
        return BfedgeError(f"the connection to {host} was lost" + (f": {said}" if said else ""))
    if code in (126, 127):
        return BfedgeError(
            f"`{program}` does not start on {host}" + (f": {said}" if said else ""),
            "is it built for this board, and may programs run from the home folder there?",
        )
    problem = explain_ending(program, code, stderr)
    return BfedgeError(f"{host}: {problem.message}", problem.hint)
