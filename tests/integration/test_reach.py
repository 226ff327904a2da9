"""However the host is reached, a script gets there, runs, and its results come back: real servers each time.

ssh takes its own folder from the account, not from HOME, so every configuration here is named by `-F`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox
from tests import needs
from tests.integration.conftest import Laptop, SandboxMaker

BIG_BYTES = 1_100_000  # more than comes back in the run's own session: rsync brings it
WRITE = f"""\
import os, pathlib, sys
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"]) / "kernel" / "8x8"
folder.mkdir(parents=True, exist_ok=True)
(folder / sys.argv[1]).write_bytes(b"x" * {{"small": 1, "big": {BIG_BYTES}}}[sys.argv[1]])
print("ran", sys.argv[1])
"""

Reach = Callable[..., None]


@pytest.fixture
def laptop(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox) -> Laptop:
    """Give a project whose host is the session's server; each has a code path of its own there."""
    made = make_laptop(sandbox)
    made.env["INVOKE_REMOTE_CODE_PATH"] = f"~/{made.root.parent.name}"
    return made


def reach(laptop: Laptop, config: str, host: str = "there", **env: str) -> None:
    """Push, run and fetch twice with a client configuration: results in the session, results by rsync."""
    path = laptop.root.parent / "ssh_config"
    path.write_text(config)
    laptop.write("write.py", WRITE)
    env = {
        "INVOKE_REMOTE_SSH_OPTIONS": shlex.join(["-F", str(path)]),
        "INVOKE_REMOTE_HOST": host,
        **env,
    }

    done = [laptop.inv("dev", "--auto-fetch", "--", "write.py", what, **env) for what in ("small", "big")]

    assert [(0, "ran small\n"), (0, "ran big\n")] == [(each.returncode, each.stdout) for each in done], [
        each.stderr for each in done
    ]
    folder = laptop.root / "cache/kernel/8x8"
    assert {"big": BIG_BYTES, "small": 1} == {each.name: each.stat().st_size for each in folder.iterdir()}


def way(server: Sandbox, **options: object) -> str:
    """Compose the block of the alias `there`: the server's own options, after those given here."""
    given = "".join(f"    {name} {value}\n" for name, value in options.items())
    return f"Host there\n{given}{server.ssh_config.read_text().partition(chr(10))[2]}"


# Client configurations --------------------------------------------------------------------------------------


def test_by_an_alias_with_name_port_key_and_user(laptop: Laptop) -> None:
    names = {line.split()[0] for line in way(laptop.host).splitlines()}
    assert names >= {"HostName", "Port", "IdentityFile", "User"}

    reach(laptop, way(laptop.host))


def test_by_user_at_host(laptop: Laptop) -> None:
    config = way(laptop.host).replace(f"    User {servers._user()}\n", "    User nobody\n")

    reach(laptop, config, f"{servers._user()}@there")


def test_by_an_included_file(laptop: Laptop) -> None:
    included = laptop.root.parent / "more" / "host's own"
    included.parent.mkdir()
    included.write_text(way(laptop.host))

    reach(laptop, f'Include "{included.parent}/*"\n')


def test_by_match_and_match_exec(laptop: Laptop) -> None:
    options = way(laptop.host).partition("\n")[2]
    port = next(line for line in options.splitlines() if "Port" in line)
    mark = laptop.root.parent / "at home"
    mark.touch()

    reach(
        laptop,
        f"Match originalhost there exec \"test -e '{mark}'\"\n{port}\n"
        f"Match originalhost there\n{options.replace(port, '    Port 1')}",
    )


def test_by_a_jump_host(laptop: Laptop, make_sandbox: SandboxMaker) -> None:
    jump = make_sandbox()
    options = jump.ssh_config.read_text().partition("\n")[2]

    reach(laptop, f"{way(laptop.host, ProxyJump='jump')}\nHost jump\n{options}")

    assert 1 == jump.log.read_text().count("Accepted publickey")


def test_by_a_proxy_command(laptop: Laptop, make_sandbox: SandboxMaker) -> None:
    jump = make_sandbox()
    proxy = f'ssh -F "{jump.ssh_config}" -W %h:%p {jump.host_alias}'

    reach(laptop, way(laptop.host, ProxyCommand=proxy))


@pytest.mark.parametrize("name", ["%C", "my %r@%h:%p"])
def test_over_the_users_own_master(laptop: Laptop, name: str) -> None:
    folder = Path(laptop.env["XDG_RUNTIME_DIR"]) / "theirs"
    folder.mkdir()
    config = way(laptop.host, ControlMaster="auto", ControlPath=f'"{folder}/{name}"', ControlPersist=60)

    reach(laptop, config)

    (theirs,) = folder.iterdir()
    sockets = [each for each in folder.parent.rglob("*") if stat.S_ISSOCK(each.lstat().st_mode)]
    assert [theirs] == sockets


def test_with_a_host_key_alias(laptop: Laptop, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"the-cluster {laptop.host.known_hosts.read_text().partition(' ')[2]}")

    reach(laptop, way(laptop.host, HostKeyAlias="the-cluster", UserKnownHostsFile=known))


def test_with_hashed_known_hosts(laptop: Laptop, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(laptop.host.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()

    reach(laptop, way(laptop.host, UserKnownHostsFile=known))


# Addresses, keys, paths -------------------------------------------------------------------------------------


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("host", ["::1", f"{servers._user()}@::1"])
def test_by_an_ipv6_literal(laptop: Laptop, make_sandbox: SandboxMaker, host: str) -> None:
    server = make_sandbox("ListenAddress ::1")

    reach(laptop, way(server).replace("Host there", "Host *").replace("    HostName 127.0.0.1\n", ""), host)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give an ssh-agent's environment."""
    folder = Path("/tmp") if len(str(tmp_path)) > 80 else tmp_path
    address = folder / f"agent-{os.getpid()}"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    while not address.exists():
        time.sleep(0.005)
    yield {"SSH_AUTH_SOCK": str(address)}
    process.terminate()
    process.wait()


def test_with_a_passphrase_key_that_only_the_agent_can_use(
    laptop: Laptop, agent: dict[str, str], tmp_path: Path
) -> None:
    key, ask = tmp_path / "key", tmp_path / "ask"
    shutil.copy(laptop.host.identity, key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open it", "-f", str(key)], check=True)
    shutil.copy(laptop.host.identity.with_suffix(".pub"), key.with_suffix(".pub"))
    ask.write_text("#!/bin/sh\necho open it\n")
    ask.chmod(0o700)
    config = way(laptop.host, IdentityFile=key, IdentityAgent="SSH_AUTH_SOCK")
    config = config.replace(f'    IdentityFile "{laptop.host.identity}"\n', "")
    asking = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, **agent, **asking}, check=True)

    reach(laptop, config, **agent)


def test_with_spaces_and_quotes_in_every_path(laptop: Laptop, tmp_path: Path) -> None:
    odd = "a \"b\" 'c' 100% é"
    server = servers.up(tmp_path / odd)
    workspace = laptop.root.rename(laptop.root.with_name(odd))
    moved = Laptop(workspace, server, {**laptop.env, "INVOKE_REMOTE_CODE_PATH": f"~/{odd}"})
    try:
        reach(moved, way(server))
    finally:
        servers.down(server.root)

    assert (server.home / odd / "write.py").exists()


# Dropbear ---------------------------------------------------------------------------------------------------

# dropbear looks for keys in the account's own home folder alone, which is no place for a test to write to.
HOME_ELSEWHERE = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pwd.h>
#include <stdlib.h>
struct passwd *getpwnam(const char *name) {
    struct passwd *(*real)(const char *) = (struct passwd *(*)(const char *))dlsym(RTLD_NEXT, "getpwnam");
    struct passwd *found = real(name);
    if (found) found->pw_dir = HOME;
    return found;
}
"""


@pytest.fixture
def dropbear(tmp_path: Path, sandbox: Sandbox) -> Iterator[tuple[Path, int, str]]:
    """Give the home folder, port and host key of a dropbear that lets the session's key in."""
    home, library, key = tmp_path / "home", tmp_path / "home.so", tmp_path / "key"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    shutil.copy(sandbox.root / "authorized_keys", home / ".ssh" / "authorized_keys")
    (home / ".ssh" / "authorized_keys").chmod(0o600)
    (tmp_path / "home.c").write_text(HOME_ELSEWHERE.replace("HOME", f'"{home}"'))
    compile_it = ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "home.c"), "-ldl"]
    subprocess.run(compile_it, check=True)
    make_key = ["dropbearkey", "-t", "ed25519", "-f", str(key)]
    said = subprocess.run(make_key, check=True, capture_output=True, text=True).stdout
    port = servers._free_port()
    path = f"{os.environ['PATH']}:{servers.SBIN}"
    command = [shutil.which("dropbear", path=path) or "", "-F", "-s", "-r", str(key), "-P", f"{tmp_path}/pid"]
    log = (tmp_path / "dropbear.log").open("w")
    process = subprocess.Popen(
        [*command, "-E", "-p", f"127.0.0.1:{port}"],
        env={"LD_PRELOAD": str(library), "PATH": path},
        stderr=log,
        start_new_session=True,
    )
    while not (tmp_path / "pid").exists():
        time.sleep(0.005)
    yield home, port, next(line for line in said.splitlines() if line.startswith("ssh-ed25519"))
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    log.close()


@needs.skip_without("dropbear")
def test_a_dropbear_server(laptop: Laptop, dropbear: tuple[Path, int, str], tmp_path: Path) -> None:
    home, port, key = dropbear
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{port} {key}\n")

    reach(laptop, way(laptop.host, Port=port, UserKnownHostsFile=known))

    assert (home / laptop.root.parent.name / "write.py").exists()


# What goes wrong on the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("-J nowhere.invalid", 68, "Could not resolve hostname nowhere.invalid"),
        ("-o ProxyCommand=/nowhere/at/all", 78, "/nowhere/at/all"),
        ("-o NoSuchOption=1", 78, "Bad configuration option: nosuchoption"),
    ],
)
def test_a_broken_way_is_one_line_with_its_own_code(
    laptop: Laptop, options: str, code: int, said: str
) -> None:
    words = f"-F {laptop.host.ssh_config} {options}"

    done = laptop.inv("exec", "--", "true", INVOKE_REMOTE_SSH_OPTIONS=words)

    first = done.stderr.splitlines()[0]
    assert (code, True, True) == (done.returncode, first.startswith("connect: "), said in first), done.stderr
