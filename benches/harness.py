"""What `compare` and `growth` share: processes of their own on free loopback ports, requests, wrk."""

import atexit
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "target/bench/venv"
TICKS = os.sysconf("SC_CLK_TCK")
FEAST = "feast[redis]==0.67.0"
PACKAGES = [FEAST, "matplotlib==3.11.2"]


def say(text: str):
    print(f"-- {text}", file=sys.stderr, flush=True)


def ensure(*commands_and_packages: tuple):
    """Installs the Debian packages of the commands that are not there."""
    missing = [package for command, package in commands_and_packages if not shutil.which(command)]
    if missing:
        say(f"installing {' '.join(missing)}")
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
        subprocess.run([*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)


def ensure_venv() -> Path:
    """A virtual environment with Feast and matplotlib; the list of packages is written last."""
    packages = VENV / "packages"
    if not packages.exists() or packages.read_text() != "\n".join(PACKAGES):
        say(f"installing {' '.join(PACKAGES)}")
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], check=True)
        packages.write_text("\n".join(PACKAGES))
    return VENV / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    """A working directory and processes that end with the script, by their own handles."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        self.processes = []
        atexit.register(self.close)

    def start(self, name: str, command: list, **options) -> subprocess.Popen:
        log = open(self.directory / f"{name}.log", "wb")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def redis(self, name: str = "redis") -> "Server":
        port, directory = free_port(), self.directory / name
        directory.mkdir(exist_ok=True)
        process = self.start(name, ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                    "--appendonly", "no", "--dir", str(directory)])  # fmt: skip
        server = Server(name, port, [process])
        server.wait_for_port()
        return server

    def ours(self, name: str, binary: Path, redis: "Server | None", cache: int | None, **settings) -> "Server | None":
        """Our server; `cache` is `cache_bytes`, `None` for a build without that setting."""
        port, directory = free_port(), self.directory / name
        directory.mkdir()
        values = {"LISTEN": f"127.0.0.1:{port}", "DATA_DIR": directory / "data", "DEFAULT_TTL": "never",
                  "EMBEDDING_TTL": "never", **settings}  # fmt: skip
        if cache is not None:
            values["CACHE_BYTES"] = cache
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("FEATURE_STORE", "REDIS"))}
        environment |= {f"FEATURE_STORE_{key}": str(value) for key, value in values.items()}
        if redis:
            environment |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis.port)}
        process = self.start(name, [binary, "serve"], cwd=directory, env=environment)
        server = Server(name, port, [process] + (redis.processes if redis else []))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if process.poll() is not None:
                if "cache_bytes" in self.log(name):
                    return None
                sys.exit(f"{name} ended:\n{self.log(name)}")
            try:
                if server.request("GET", "/readyz")[0] == 200:
                    return server
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit(f"{name} does not get ready:\n{self.log(name)}")


class Server:
    def __init__(self, name: str, port: int, processes: list):
        self.name, self.port, self.processes = name, port, processes
        self.url = f"http://127.0.0.1:{port}"

    def wait_for_port(self, seconds: float = 60):
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes):
                    sys.exit(f"{self.name} does not listen")
                time.sleep(0.1)

    def request(self, method: str, path: str, body=None) -> tuple:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def call(self, method: str, path: str, body=None):
        status, answer = self.request(method, path, body)
        if not 200 <= status < 300:
            sys.exit(f"{self.name}: {method} {path[:200]}: {status} {answer[:500]!r}")
        return json.loads(answer)

    def write(self, entity_type: str, rows: list, batch: int = 500):
        """`rows`: pairs of id and features."""
        for start in range(0, len(rows), batch):
            some = [{"entity_id": str(key), "features": features} for key, features in rows[start : start + batch]]
            answer = self.call("POST", "/v1/features/write", {"entity_type": entity_type, "rows": some})
            if answer["rejected"]:
                sys.exit(f"{self.name} refused rows: {answer['results'][0]}")

    def processor_seconds(self) -> float:
        """User and system time of everything that answers."""
        return sum(tree_seconds(process.pid) for process in self.processes)


def tree_seconds(pid: int) -> float:
    """Of a process and its children (Feast has workers)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(tree_seconds(int(child)) for child in children)


class Requests:
    """Ready-made HTTP requests that wrk sends in random order."""

    def __init__(self, bench: Bench, name: str, requests: list):
        self.path = bench.directory / f"{name}.requests"
        self.path.write_bytes(b"\0".join(requests))


def http_request(method: str, path: str, body=None) -> bytes:
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if data:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


def wrk(server: Server, requests: Requests, seconds: float, connections: int) -> dict:
    """Requests a second, latencies in ms, and the processor time a request in µs."""
    before = server.processor_seconds()
    command = ["wrk", "-t1", "--timeout", "10s", f"-c{connections}", f"-d{seconds}s", "-s",
               ROOT / "benches/wrk/ready_made.lua", server.url]  # fmt: skip
    run = subprocess.run(command, env=os.environ | {"REQUESTS": str(requests.path)}, capture_output=True, text=True)
    line = next((line for line in run.stdout.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        sys.exit(f"wrk on {server.name}: {run.stdout}{run.stderr}")
    rate, p50, p99, count, failed = map(float, line.split()[1:])
    # Feast drops some requests under this load, which are not counted; of all others none may fail.
    if failed and server.name != "feast":
        sys.exit(f"{server.name}: {failed:.0f} of {count:.0f} requests failed")
    return {"rate": rate * (1 - failed / max(count, 1)), "failed": failed, "p50_ms": p50, "p99_ms": p99,
            "cpu_us": (server.processor_seconds() - before) / max(count, 1) * 1e6}  # fmt: skip


def machine() -> str:
    """In words, for the head of a table."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown processor")  # fmt: skip
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    uname = os.uname()
    return f"{cpu}, {os.cpu_count()} processors, {kilobytes / 2**20:.0f} GiB, {uname.sysname} {uname.release}"


chance = random.Random(7)


def numbers(count: int, prefix: str = "f") -> dict:
    return {f"{prefix}{index:03d}": round(chance.random(), 6) for index in range(count)}
