"""Boards behind SSH."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bfedge.device import ssh
from bfedge.device.compiler import TargetCompiler, compile_program, find_compiler, runtime_sources
from bfedge.device.exported import Exported, sha256
from bfedge.device.profile import load_profile
from bfedge.device.session import Session
from bfedge.device.ssh import deploy, deploy_exported, open_deployed, open_remote
from bfedge.errors import BfedgeError
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered
from tests.ssh_server import Server, needs_sshd

MACHINE = platform.machine()

pytestmark = needs_sshd


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(tmp_path)
    monkeypatch.setenv("BFEDGE_SSH", made.client)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    program, model = tmp_path / "program", tmp_path / "model"
    program.write_text("#!/bin/sh\ncat\n")
    program.chmod(0o755)
    model.write_bytes(bytes(range(256)) * 1000)
    return {"program": program, "model.bfe": model}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real device program for this machine, and a model."""
    folder = tmp_path_factory.mktemp("device")
    compile_program(TargetCompiler(find_compiler()), runtime_sources(), folder / "bfedge-device", "host")
    model = random_lowered(5)
    (folder / "model.bfe").write_bytes(pack(model, golden_vectors(model, random_images(model, 2, 5))))
    return {name: folder / name for name in ("bfedge-device", "model.bfe")}


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_program_and_its_model_run_on_the_board(server: Server, device: dict[str, Path]) -> None:
    folder = deploy(server.host, "host", device, MACHINE)
    assert folder == str(server.cache / "host")
    assert everything_in(server.cache) == {f"host/{name}": path.read_bytes() for name, path in device.items()}
    with open_remote(server.host, folder, "bfedge-device", ["model.bfe"]) as session:
        greeting = session.hello()
        assert greeting.model is not None
        assert greeting.model.bytes == device["model.bfe"].stat().st_size
        assert [session.golden(case).differing for case in range(greeting.model.golden)] == [0, 0]
        assert session.profile(0)[1].workspace.intact


def exported_from(folder: Path) -> Exported:
    sums = {name: sha256(folder / name) for name in ("bfedge-device", "model.bfe")}
    return Exported(folder=folder, profile=load_profile("host"), tile=0, arena_bytes=0, files=sums)


def test_an_exported_folder_runs_on_the_board(server: Server, device: dict[str, Path]) -> None:
    exported = exported_from(device["model.bfe"].parent)
    assert deploy_exported(server.host, exported) == str(server.cache / f"host-{exported.files['model.bfe'][:8]}")
    with open_deployed(server.host, exported) as session:
        assert session.golden(1).differing == 0
    other = msgspec.structs.replace(exported.profile, cpu=msgspec.structs.replace(exported.profile.cpu, machine="mips"))
    with pytest.raises(BfedgeError, match="the program is for mips"):
        deploy_exported(server.host, dataclasses.replace(exported, profile=other))


def another_model(folder: Path, device: dict[str, Path]) -> Exported:
    folder.mkdir()
    shutil.copy(device["bfedge-device"], folder)
    model = random_lowered(6)
    (folder / "model.bfe").write_bytes(pack(model, golden_vectors(model, random_images(model, 3, 6))))
    return exported_from(folder)


def test_two_models_for_one_board_at_the_same_time_are_not_swapped(
    server: Server, device: dict[str, Path], tmp_path: Path
) -> None:
    """The other one is deployed when the first session is not yet open."""
    one, other = exported_from(device["model.bfe"].parent), another_model(tmp_path / "other", device)
    folder = deploy_exported(server.host, one)
    with (
        open_deployed(server.host, other) as second,
        open_remote(server.host, folder, "bfedge-device", ["model.bfe"]) as first,
    ):
        found = [greeting.model.golden for greeting in (first.hello(), second.hello()) if greeting.model]
        assert found == [2, 3]
        assert first.golden(1).differing == second.golden(2).differing == 0


def test_two_that_send_the_same_file_at_the_same_time_do_not_disturb_each_other(
    server: Server, files: dict[str, Path]
) -> None:
    server.replace_command("cat", 'head -c 100000; sleep 0.5; exec /bin/cat "$@"')
    failures: list[BfedgeError] = []

    def copy() -> None:
        try:
            deploy(server.host, "board", files, MACHINE)
        except BfedgeError as problem:
            failures.append(problem)

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert failures == []
    assert everything_in(server.cache) == {f"board/{name}": path.read_bytes() for name, path in files.items()}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("name", ["bfedge-device", "model.bfe"])
@pytest.mark.parametrize("spoil", [cut, flip, Path.unlink, make_pipe])
def test_files_that_are_not_those_of_the_export_are_refused_before_anybody_is_asked(
    device: dict[str, Path], tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    exported = another_model(tmp_path / "export", device)
    spoil(exported.folder / name)
    with pytest.raises(BfedgeError, match=rf"{name}`( is not the file that was exported|$)") as problem:
        deploy_exported("nobody@nowhere.invalid", exported)
    assert problem.value.hint == "export the model again"


def test_a_model_that_is_none_is_refused_though_its_hash_is_right(device: dict[str, Path], tmp_path: Path) -> None:
    exported = another_model(tmp_path / "export", device)
    flip(exported.model)
    with pytest.raises(BfedgeError, match=r"checksum .* the header says"):
        deploy_exported("nobody@nowhere.invalid", exported_from(exported.folder))


def test_what_is_there_already_is_not_sent_again(server: Server, files: dict[str, Path]) -> None:
    deploy(server.host, "board", files, MACHINE)
    before = {name: (server.cache / "board" / name).stat() for name in files}
    made = server.connections()
    deploy(server.host, "board", files, MACHINE)
    assert server.connections() == made + 1
    files["model.bfe"].write_bytes(b"another model")
    deploy(server.host, "board", files, None)
    assert server.connections() == made + 3
    after = {name: (server.cache / "board" / name).stat() for name in files}
    assert after["program"].st_mtime_ns == before["program"].st_mtime_ns
    assert (server.cache / "board" / "model.bfe").read_bytes() == b"another model"
    assert (after["program"].st_mode & 0o777, after["model.bfe"].st_mode & 0o777) == (0o755, 0o644)


def test_names_may_have_what_a_shell_would_take_for_its_own(server: Server, files: dict[str, Path]) -> None:
    name = "a 'b' \"c\" $(touch gone) `touch gone`; touch gone & * -e \\"
    folder = deploy(server.host, name, {name: files["program"], "-rf": files["model.bfe"]}, MACHINE)
    assert set(everything_in(server.cache)) == {f"{name}/{name}", f"{name}/-rf"}
    with contextlib.closing(open_remote(server.host, folder, name, ["$HOME;*"])) as session:
        session.channel.transport.write(b"echo\n")
        assert session.channel.transport.read_line(20) == b"echo"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "new\nline", "x" * 101])
def test_names_that_would_leave_the_folder_are_refused(name: str, files: dict[str, Path]) -> None:
    with pytest.raises(BfedgeError, match="cannot be the name"):
        deploy("nobody@nowhere", "board", {name: files["model.bfe"]}, None)
    with pytest.raises(BfedgeError, match="cannot be the name"):
        deploy("nobody@nowhere", name, files, None)


def test_another_machine_is_refused_before_anything_is_written(server: Server, files: dict[str, Path]) -> None:
    server.replace_command("uname", "echo armv6l")
    with pytest.raises(BfedgeError, match="is a armv6l, the program is for aarch64") as problem:
        deploy(server.host, "board", files, "aarch64")
    assert "--target" in str(problem.value.hint)
    assert not list(server.home.iterdir())


def test_too_little_room_is_refused_before_anything_is_written(server: Server, files: dict[str, Path]) -> None:
    server.replace_command("df", "echo header; echo /dev/root 1000 800 200 80% /")
    with pytest.raises(BfedgeError, match=r"has 204,800 bytes free for .*/\.cache/bfedge/board, 256,014 are needed"):
        deploy(server.host, "board", files, MACHINE)
    assert not list(server.home.iterdir())


def test_a_disk_that_fills_up_leaves_what_was_there(server: Server, files: dict[str, Path]) -> None:
    deploy(server.host, "board", files, MACHINE)
    before = everything_in(server.home)
    files["model.bfe"].write_bytes(b"another model")
    server.replace_command("cat", "head -c 5; echo 'cat: write error: No space left on device' >&2; exit 1")
    with pytest.raises(BfedgeError, match=r"the disk of .* is full"):
        deploy(server.host, "board", files, MACHINE)
    assert everything_in(server.home) == before


def test_a_copy_that_is_damaged_on_the_way_is_not_taken(server: Server, files: dict[str, Path]) -> None:
    server.replace_command("cat", "/bin/cat; echo x")
    with pytest.raises(BfedgeError, match=r"program` arrived damaged on .*127.0.0.1"):
        deploy(server.host, "board", files, MACHINE)
    assert not everything_in(server.home)


def test_a_connection_that_breaks_while_copying_leaves_nothing_half(server: Server, files: dict[str, Path]) -> None:
    server.replace_command("cat", f"head -c 5; echo > {server.folder}/begun; exec sleep 2")

    def kill_when_begun() -> None:
        while not (server.folder / "begun").exists():
            time.sleep(0.02)
        server.stop()

    killer = threading.Thread(target=kill_when_begun)
    killer.start()
    with pytest.raises(BfedgeError, match=r"connection to .* was lost"):
        deploy(server.host, "board", files, MACHINE)
    killer.join()
    for _ in range(100):
        if not everything_in(server.home):
            break
        time.sleep(0.1)
    assert not everything_in(server.home)


def test_a_missing_command_on_the_board_is_named(server: Server, files: dict[str, Path]) -> None:
    for tool in ("sh", "df", "mkdir", "cat", "mv", "chmod", "rm", "uname"):
        found = shutil.which(tool)
        assert found
        (server.commands / tool).symlink_to(found)
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace(":/usr/local/bin:/usr/bin:/bin", ""))
    server.stop()
    server.start()
    with pytest.raises(BfedgeError, match="has no command `sha256sum`"):
        deploy(server.host, "board", files, MACHINE)
    assert not everything_in(server.home)


def test_words_of_the_shells_start_up_files_do_no_harm(server: Server, files: dict[str, Path]) -> None:
    server.replace_command("sh", 'echo Welcome to my board; echo bfedge; exec /bin/sh "$@"')
    folder = deploy(server.host, "board", files, MACHINE)
    assert len(everything_in(server.home)) == 2
    assert folder == str(server.cache / "board")


def test_a_login_that_is_no_shell_is_an_error(server: Server, files: dict[str, Path]) -> None:
    config = server.folder / "sshd_config"
    config.write_text(config.read_text() + "ForceCommand echo This account is for git only\n")
    server.stop()
    server.start()
    with pytest.raises(BfedgeError, match=r"does not run commands .*it says: This account is for git only"):
        deploy(server.host, "board", files, MACHINE)


def test_a_host_whose_key_is_unknown_is_refused(server: Server, files: dict[str, Path]) -> None:
    server.know("")
    with pytest.raises(BfedgeError, match="is not in your known_hosts") as problem:
        deploy(server.host, "board", files, MACHINE)
    assert "fingerprint" in str(problem.value.hint)
    assert (server.folder / "known_hosts").read_text() == ""
    assert not list(server.home.iterdir())


def test_a_host_whose_key_has_changed_is_refused(server: Server, files: dict[str, Path]) -> None:
    server.know((server.folder / "other_key.pub").read_text())
    with pytest.raises(BfedgeError, match="has another host key than the one in your known_hosts") as problem:
        deploy(server.host, "board", files, MACHINE)
    assert "ssh-keygen -R 127.0.0.1" in str(problem.value.hint)


def test_a_key_that_the_board_does_not_know_is_refused(server: Server, files: dict[str, Path]) -> None:
    server.use_key("other_key")
    with pytest.raises(BfedgeError, match="does not let you in") as problem:
        deploy(server.host, "board", files, MACHINE)
    assert "ssh-copy-id" in str(problem.value.hint)


def test_a_board_without_an_ssh_server_refuses_the_connection(server: Server, files: dict[str, Path]) -> None:
    server.stop()
    with pytest.raises(BfedgeError, match="refuses the connection"):
        deploy(server.host, "board", files, MACHINE)


def test_a_board_that_never_answers_is_given_up(
    server: Server, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("BFEDGE_SSH", f"{server.client} -o ConnectTimeout=1")
        with pytest.raises(BfedgeError, match="does not answer"):
            deploy(f"me@127.0.0.1:{mute.getsockname()[1]}", "board", files, MACHINE)


def test_a_name_that_nobody_has(server: Server, files: dict[str, Path]) -> None:
    with pytest.raises(BfedgeError, match=r"there is no host pi.invalid"):
        deploy("me@pi.invalid", "board", files, MACHINE)


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch /tmp/owned", "two words", "a\nb"])
def test_a_host_cannot_be_an_option_of_ssh(host: str, files: dict[str, Path]) -> None:
    with pytest.raises(BfedgeError, match="is no host"):
        deploy(host, "board", files, MACHINE)


def test_hosts_are_written_as_ssh_or_with_a_port() -> None:
    def where(host: str) -> list[str]:
        return ssh.ssh_command(host, "", [])[1 + len(ssh.OPTIONS) : -1]

    assert where("pi@board") == ["--", "pi@board"]
    assert where("pi@board:2222") == ["-p", "2222", "--", "pi@board"]
    assert where("ssh://pi@board:2222") == ["--", "ssh://pi@board:2222"]
    assert where("fe80::1") == ["--", "fe80::1"]


def test_host_keys_are_always_checked() -> None:
    assert "BatchMode=yes" in ssh.OPTIONS
    assert not any("StrictHostKeyChecking" in option for option in ssh.OPTIONS)


@pytest.mark.parametrize(
    ("client", "message"),
    [("/nowhere/ssh -F x", "there is no ssh client `/nowhere/ssh -F x`"), ("ssh 'x", "BFEDGE_SSH is no command")],
)
def test_without_a_client_the_way_to_get_it_is_told(
    client: str, message: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BFEDGE_SSH", client)
    with pytest.raises(BfedgeError, match=message):
        deploy("pi@board", "board", files, MACHINE)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BfedgeError, match=f"cannot read `{tmp_path}/none`"):
        deploy("pi@board", "board", {"none": tmp_path / "none"}, MACHINE)


def remote(server: Server, script: str) -> Session:
    """A session with a shell script as the program."""
    program = server.home / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return open_remote(server.host, str(server.home), "program", timeout=20)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -ILL $$", "127.0.0.1:.*: `program` was built for a newer CPU"),
        ("kill -SEGV $$", "`program` was ended by SIGSEGV"),
        ("echo cannot read model >&2; exit 3", "`program` ended with exit status 3: cannot read model"),
    ],
)
def test_how_a_program_on_the_board_ends_is_told(server: Server, script: str, message: str) -> None:
    with remote(server, script) as session, pytest.raises(BfedgeError, match=message):
        session.hello()


def test_a_program_that_is_not_there_or_not_for_this_board_is_told(server: Server) -> None:
    with remote(server, "exit") as session:
        (server.home / "program").unlink()
        with pytest.raises(BfedgeError, match="`program` does not start on"):
            session.hello()
    with remote(server, "exit") as session:
        (server.home / "program").write_bytes(b"\x7fELF nonsense")
        with pytest.raises(BfedgeError, match="`program` does not start on"):
            session.hello()


def test_a_server_that_is_killed_in_the_middle_is_a_lost_connection(server: Server, device: dict[str, Path]) -> None:
    folder = deploy(server.host, "host", device, MACHINE)
    with open_remote(server.host, folder, "bfedge-device", ["model.bfe"]) as session:
        session.hello()
        server.stop()
        with pytest.raises(BfedgeError, match=r"connection to .*127.0.0.1.* was lost"):
            session.golden(0)


def test_a_program_on_the_board_ends_with_its_session(server: Server) -> None:
    session = remote(server, f"echo $$ > {server.home}/pid; cat; echo over > {server.home}/end")
    for _ in range(200):
        if (server.home / "pid").exists():
            break
        time.sleep(0.05)
    session.close()
    for _ in range(200):
        if (server.home / "end").exists():
            return
        time.sleep(0.05)
    pytest.fail("the program lives on")
