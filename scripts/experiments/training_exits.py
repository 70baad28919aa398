"""Measure how training ends after errors, signals and kills, and print a table.

    python scripts/experiments/training_exits.py --launchers alone torchrun launch

Each run trains a tiny network on drawn images, on the CPU, with two data loading processes per
training process; torchrun and torch.distributed.launch start two training processes. The seconds
count from the error, signal or kill until all processes of train.py have ended; then until the
launcher has ended, too, whose own clean-up takes more than a second of a core. A run on a full disk
needs `unshare`, which mounts a small file system.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from util.command_line import script_parser

LAUNCHERS = ("alone", "torchrun", "launch")
WAYS = (
    "error in a worker", "damaged image", "mask without an object", "error in training", "NaN loss",
    "full disk", "SIGTERM", "SIGTERM to all processes", "Ctrl-C twice", "worker killed",
    "training process killed",
)  # fmt: skip
# Environment variable that marks the processes of a run.
_MARK = "TRAINING_EXITS_RUN"
_OPTIONS = (
    "--id run --size tiny --crop_size 32 -b 2 --num_workers 2 --device cpu --no_amp "
    "--backbone_weights none --report_interval 1 --save_interval 1000 -i 100000 --image_interval "
    "100000"
).split()
_EXTRA = {
    "damaged image": ["--max_bad_share", "0"],
    "mask without an object": ["--max_bad_share", "0"],
    "error in a worker": ["--accident", "worker"],
    "error in training": ["--accident", "main"],
    "NaN loss": ["--lr", "1e30"],
    "full disk": ["--save_interval", "2"],
}
_DISK = "3m"  # size of the full disk; a checkpoint is larger
_ERROR = r"^(\[rank\d+\]: )?(train\.py: error|\w+Error)\b"
# Seconds in which every run must end, and in which its cause must come.
LIMIT, _START_LIMIT = 10.0, 600.0


_running: list[Run] = []


class Ending(NamedTuple):
    """The end of one run."""

    way: str
    launcher: str
    training_seconds: float | None  # without the launcher; None: some process was still running
    seconds: float | None
    status: int | None  # of the command; negative: the number of a signal
    num_left: int  # processes that still ran at the timeout
    message: str


class Run:
    """A run of train.py, whose standard error is read in a thread."""

    def __init__(self, launcher: str, way: str, data: Path, folder: Path) -> None:
        self.data, self.saves = data, folder / "saves"
        self.saves.mkdir(parents=True)
        self._mark = secrets.token_hex(8)
        command = [sys.executable]
        if launcher != "alone":
            module = {"torchrun": "run", "launch": "launch"}[launcher]
            command += ["-m", f"torch.distributed.{module}", "--nproc_per_node=2"]
            command += [f"--master_port={_free_port()}"]
        extra = _EXTRA.get(way, [])
        script = "scripts/experiments/failing_train.py" if "--accident" in extra else "train.py"
        command += [script, *_OPTIONS, *extra]
        command += ["--static_root", str(data), "--save_dir", str(self.saves)]
        if way == "full disk":
            mount = f'mount -t tmpfs -o size={_DISK} disk {self.saves} && exec "$@"'
            command = ["unshare", "-rm", "sh", "-c", mount, "sh", *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", _MARK: self._mark}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stderr is not None
        self.lines: list[str] = []
        self.failed: float | None = None  # time of the first message of an error
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        _running.append(self)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            if self.failed is None and re.search(r"error|Error|Traceback", line):
                self.failed = time.monotonic()
            self.lines.append(line.rstrip())

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds; False at the timeout."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def has_trained(self, iterations: int = 3) -> bool:
        """Whether the log has some iterations."""
        log = self.saves / "run" / "log.jsonl"
        return log.exists() and len(log.read_text().splitlines()) >= iterations

    def wait_for_end(self, start: float, timeout: float) -> tuple[float | None, float | None]:
        """Seconds from `start` to the end of the processes of train.py, and to that of all."""
        training = self.wait_for(lambda: not self.training_processes(), timeout)
        seconds = time.monotonic() - start
        everything = training and self.wait_for(
            lambda: self.process.poll() is not None and not self.processes(), timeout
        )
        total = time.monotonic() - start
        return seconds if training else None, total if everything else None

    def processes(self) -> dict[int, tuple[int, str]]:
        """Process id -> parent's id and command line, of all processes of the run."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self._mark}".encode() not in (folder / "environ").read_bytes():
                    continue
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is another user's
                continue
            if state != "Z":
                found[int(folder.name)] = (int(parent), command)
        return found

    def training_processes(self) -> list[int]:
        """Ids of the training processes, in order of their start."""
        trains = {
            pid: parent
            for pid, (parent, command) in self.processes().items()
            if "torch.distributed." not in command
        }
        return sorted(pid for pid, parent in trains.items() if parent not in trains)

    def workers(self) -> list[int]:
        """Ids of the data loading processes of the last training process."""
        last = self.training_processes()[-1]
        return sorted(pid for pid, (parent, _) in self.processes().items() if parent == last)

    def kill(self) -> None:
        """Kill all processes that are left."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        _running.remove(self)

    def message(self) -> str:
        """First message of an error, else the last line of the log, else the last line."""
        errors = [line for line in self.lines if re.search(_ERROR, line)]
        errors.sort(
            key=lambda line: "nother process" in line or "process 0" in line
        )  # the first cause first
        logged = [line for line in self.lines if re.match(r"\d{4}-\d\d-\d\d .*iteration", line)]
        line = errors[0] if errors else (logged or self.lines or [""])[-1]
        return line.replace(f"{self.saves.parent}/", "").replace(f"{self.data.parent}/", "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS), help="(default: all)"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="(default: all)"
    )
    parser.add_argument(
        "--timeout", type=float, default=40, help="seconds to wait for an end (default: 40)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

from PIL import Image

from scripts import make_synthetic


def make_data(folder: Path) -> dict[str, Path]:
    """Draw images; returns the folder of the data by way out, some with one bad file."""
    flags = [str(folder), "--layouts", "static", "--num_videos", "3"]
    make_synthetic.main([*flags, "--height", "48", "--width", "64"])
    folders = dict.fromkeys(WAYS, folder / "static")
    for way in ("damaged image", "mask without an object"):
        folders[way] = shutil.copytree(folder / "static", folder / way)
    image = folders["damaged image"] / "ECSSD" / "image0001.jpg"
    image.write_bytes(image.read_bytes()[:400])
    mask = folders["mask without an object"] / "ECSSD" / "image0001.png"
    Image.new("L", (64, 48)).save(mask)
    return folders


def cause(run: Run, way: str) -> float:
    """Cause the end of a run, or wait for it; returns the time of its cause."""
    if way in _EXTRA:
        run.wait_for(lambda: run.failed is not None or run.process.poll() is not None, _START_LIMIT)
        return run.failed or time.monotonic()
    run.wait_for(lambda: run.has_trained() or run.process.poll() is not None, _START_LIMIT)
    start = time.monotonic()
    if way == "SIGTERM":
        run.process.terminate()
    elif way == "SIGTERM to all processes":
        for pid in run.processes():
            os.kill(pid, signal.SIGTERM)
    elif way == "Ctrl-C twice":  # the terminal signals all processes of the command's group
        for _ in range(2):
            os.killpg(run.process.pid, signal.SIGINT)
            time.sleep(0.1)
    elif way == "worker killed":
        os.kill(run.workers()[0], signal.SIGKILL)
    else:
        os.kill(run.training_processes()[-1], signal.SIGKILL)
    return start


def measure(launcher: str, way: str, data: Path, timeout: float) -> Ending:
    """Start a run, cause its end, and wait until all of its processes have ended."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(launcher, way, data, Path(folder))
        try:
            start = cause(run, way)
            seconds = run.wait_for_end(start, timeout)
            num_left, status = len(run.processes()), run.process.poll()
        finally:
            run.kill()
        return Ending(way, launcher, *seconds, status, num_left, run.message())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; the status is 1 if a run did not end in 10 seconds."""
    arguments = parse(argv)
    print(
        "| way out | launcher | seconds to the end | with the launcher | exit status | processes "
        "left | message |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        data = make_data(Path(folder))
        endings = [
            pool.submit(measure, launcher, way, data[way], arguments.timeout)
            for way in arguments.ways
            for launcher in arguments.launchers
        ]
        is_slow = False
        try:
            for future in endings:
                is_slow |= _print(future.result(), arguments.timeout)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for run in [*_running]:
                run.kill()
            raise
    return int(is_slow)


def _print(ending: Ending, timeout: float) -> bool:
    """Print a row of the table; return True if training took longer than the limit to end."""
    times = [
        f"over {timeout:g}" if seconds is None else f"{seconds:.1f}"
        for seconds in (ending.training_seconds, ending.seconds)
    ]
    status = "" if ending.status is None else ending.status
    cells = (ending.way, ending.launcher, *times, status, ending.num_left, ending.message)
    print("|", " | ".join(map(str, cells)), "|", flush=True)
    return ending.training_seconds is None or ending.training_seconds > LIMIT


if __name__ == "__main__":
    sys.exit(main())
