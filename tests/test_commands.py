"""Every command in a ```bash fence of README, docs and the folders' READMEs, run in order, document by document.

The README comes first: its commands make the corpus and the run that those of the other documents work on. Ports are
replaced by free ones, since other servers may run on this machine, and servers are started, waited for, asked by the
commands that follow them, and ended by their process id. `pytest -s -m commands` shows what each command took.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("jobs", "tune_spaces", "serve_apps", "cluster")
PATIENCE_S = 240

# Beginnings of commands that are not run, and why.
NOT_RUN = {
    "make ": "installs and runs everything; test_docs checks that the target exists",
    "python3 -m venv": "installs",
    ".venv/bin/python -m pip install": "installs",
    "pip install": "installs",
    "source .venv/bin/activate": "the environment of this test is active already",
}
# Says what a machine lacks: 1 is an answer.
MAY_ANSWER_ONE = ("sign-dist doctor",)


@dataclasses.dataclass(frozen=True)
class Server:
    """A command that runs until it is ended: the port it listens on by default, where it answers, and who asks it."""

    port: str
    address: str
    clients: str
    extra: str = ""
    end_by: signal.Signals = signal.SIGINT


# `{...}` are free ports, by the port that the documents name.
SERVERS = {
    "python3 -m http.server": Server("8000", "/", "sign-dist download", "{8000}"),
    "sign-dist serve": Server("8000", "/readyz", "curl", "--port {8000}"),
    "serve run": Server("8000", "/readyz", "curl"),
    "tensorboard": Server("6006", "/", "curl", "--port {6006}"),
    "optuna-dashboard": Server("8080", "/", "curl", "--port {8080}"),
    "ray start --head": Server(
        "8265",
        "/api/version",
        "ray",
        "--block --num-cpus=4 --disable-usage-stats --dashboard-port={8265} --ray-client-server-port={client} "
        "--dashboard-agent-listen-port={agent} --temp-dir={temp}",
        signal.SIGTERM,
    ),
}
PORTS = ("8000", "6006", "8080", "6379", "8265", "client", "agent")


def commands_of(path: Path) -> list[str]:
    """The commands of a document's bash fences; a continued line and a here-document belong to their command."""
    found: list[str] = []
    for fence in re.findall(r"^```bash\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        lines = iter(fence.splitlines())
        for line in lines:
            command = line
            while command.endswith("\\"):
                command += "\n" + next(lines)
            if here := re.search(r"<<'?(\w+)'?$", command):
                while not command.endswith("\n" + here[1]):
                    command += "\n" + next(lines)
            if command.strip() and not command.startswith("#"):
                found.append(command)
    return found


def documents() -> list[Path]:
    """Those with commands, the README first."""
    folders = sorted(path for path in ROOT.glob("*/README.md") if not path.parent.name.startswith("."))
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *folders]
    return [path for path in dict.fromkeys(paths) if commands_of(path)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def is_free(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) != 0


class Terminal:
    """Where the commands of one document are typed: exported variables stay from one to the next."""

    def __init__(self, folder: Path, document: str) -> None:
        self.folder, self.document = folder, document
        # A user's shell: no setting of whoever runs the tests, but for one thread a process.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
        self.env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        self.ports = {name: free_port() for name in PORTS}
        self.temp = Path(tempfile.mkdtemp(prefix="sd_ray_", dir="/tmp"))  # sockets have short paths
        self.server: tuple[Server, subprocess.Popen[bytes]] | None = None

    def type(self, command: str) -> None:
        """Run a command to its end, or start it if it is a server."""
        if command.startswith(tuple(NOT_RUN)):
            return
        if self.server and not command.startswith(self.server[0].clients):
            self.end_server()
        if "landmarks" in command:
            need_landmark_files()
        began = time.monotonic()
        server = next((server for start, server in SERVERS.items() if command.startswith(start)), None)
        if server is None:
            self._run(command)
        elif shutil.which(command.split()[0], path=self.env["PATH"]):
            self._start(command, server)
        else:
            print(f"  not run  {self.document}: {command.split()[0]} is not installed")
            return
        print(f"{time.monotonic() - began:7.1f} s  {self.document}: {command.splitlines()[0]}")

    def _run(self, command: str) -> None:
        log, state = self.folder / ".log", self.folder / ".env"
        script = f"set -eo pipefail\n{self._with_ports(command)}\nenv -0 > .env\n"
        with log.open("wb") as file:
            try:
                done = subprocess.run(
                    ["bash", "-c", script], cwd=self.folder, env=self.env, stdout=file, stderr=subprocess.STDOUT, timeout=PATIENCE_S
                )
            except subprocess.TimeoutExpired:
                self._fail(command, f"has not ended after {PATIENCE_S} s", log)
        if done.returncode == 1 and command.startswith(MAY_ANSWER_ONE):
            return
        if done.returncode:
            self._fail(command, f"ended with {done.returncode}", log)
        self.env = dict(entry.split("=", 1) for entry in state.read_text(encoding="utf-8").split("\0") if entry)
        if "Traceback" in log.read_text(encoding="utf-8", errors="replace"):
            self._fail(command, "shows a traceback", log)
        if command.startswith("curl"):
            answer = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
            assert answer.get("status", 200) in (200, "ok", "ready", 415, 422), answer

    def _start(self, command: str, server: Server) -> None:
        env = dict(self.env)
        if not server.extra:  # `serve run` has no word for the port
            if not is_free(server.port):
                pytest.skip(f"port {server.port} is in use, and {command!r} cannot choose another")
            self.ports[server.port] = server.port
            # A Ray of its own, also where another one is running; its token goes elsewhere than into the user's home.
            env |= {"RAY_ADDRESS": "local", "HOME": str(self.folder)}
        extra = re.sub(r"{(\w+)}", lambda m: str(self.temp) if m[1] == "temp" else self.ports[m[1]], server.extra)
        log = self.folder / ".server_log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._with_ports(command)} {extra}"],
                cwd=self.folder, env=env, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.server = (server, process)
        url = f"http://127.0.0.1:{self.ports[server.port]}{server.address}"
        until = time.monotonic() + PATIENCE_S
        while not answers(url):
            if process.poll() is not None or time.monotonic() > until:
                self._fail(command, f"does not answer at {url} (exit code {process.poll()})", log)
            time.sleep(0.3)

    def end_server(self) -> None:
        """Ctrl-C, as a user would; whatever of its processes is still there after a while is killed, each by its id."""
        if self.server is None:
            return
        server, process = self.server
        self.server = None
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(server.end_by)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        _, alive = psutil.wait_procs([*children], timeout=5)
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if process.poll() is None:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.end_server()
        shutil.rmtree(self.temp, ignore_errors=True)

    def _with_ports(self, command: str) -> str:
        return re.sub(r"(?<=[:=])(8000|6006|8080|6379|8265)\b", lambda m: self.ports[m[1]], command)

    def _fail(self, command: str, what: str, log: Path) -> NoReturn:
        pytest.fail(
            f"{self.document}: {command!r} {what}\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}", pytrace=False
        )


def answers(url: str) -> bool:
    """Whether a server is up. Ray's dashboard refuses who has no token, and is up then."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False


def need_landmark_files() -> None:
    from sign_dist.errors import WeightsError
    from sign_dist.features.encode import models_dir
    from sign_dist.video.model_files import find_files, landmark_roles

    try:
        find_files(landmark_roles(face=False), models_dir())
    except WeightsError as error:
        pytest.skip(str(error))


def walk(folder: Path, document: Path) -> None:
    """Type every command of a document."""
    terminal = Terminal(folder, name_of(document))
    try:
        for command in commands_of(document):
            terminal.type(command)
    finally:
        terminal.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder laid out like the repository, in which the README's commands were run."""
    root = tmp_path_factory.mktemp("repository")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    walk(root, ROOT / "README.md")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.commands
@pytest.mark.timeout(1800)  # the README is walked inside the first one, on a machine that may be busy
@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_the_commands_of_a_document_run(document: Path, folder: Path) -> None:
    if document != ROOT / "README.md":  # the fixture has walked it
        walk(folder, document)


def test_every_excuse_is_used() -> None:
    """A command that is not shown any more needs none."""
    shown = [command for document in documents() for command in commands_of(document)]
    for start in (*NOT_RUN, *MAY_ANSWER_ONE, *SERVERS):
        assert any(command.startswith(start) for command in shown), start


def test_commands_are_read_whole() -> None:
    document = ROOT / "docs" / "train.md"
    (here,) = [command for command in commands_of(document) if command.startswith("cat >")]
    assert here.endswith("\nEND")
    (submit,) = [command for command in commands_of(ROOT / "docs" / "cluster.md") if "job submit" in command]
    assert "--out" in submit
