"""Kills a small fine-tuning run at random, starts it again, and compares what it ends with.

A real job (the command line, a tiny Llama folder, invented questions) is run undisturbed once. Then
it is killed (SIGTERM or SIGKILL, of one process or of either of two) at random moments, during a
save and during the report, its newest checkpoint is damaged, and the disk is filled; the same
command is started again until it is done. Figures of summary.json, every line of metrics.jsonl and
every score in the predictions must be exactly those of the undisturbed run.

    python benchmarks/soak.py [--kills 20] [--seed 0] [--processes 1|2] [--devices 4]

The disk is filled for real where a small tmpfs can be mounted, otherwise by a limit on a file's
size. Exit status 1 on a difference or on a process that does not end.
"""

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib_jax.reports import predictions, read_metrics  # noqa: E402
from tests.conftest import write_tiny_model  # noqa: E402
from tests.jobs.conftest import CommandLine  # noqa: E402

FLAGS = (
    "--config.checkpoint.every_steps=2",
    "--config.train.microbatches=1",
    "--config.mesh.shape=(1,-1,1)",
)
MOMENTS = {"any time": 0.6, "during a save": 0.25, "during the report": 0.15}
LIMIT = 300  # seconds after which a run hangs
BOUND = 120  # seconds in which the processes that are left must end


class Failure(Exception):
    """The soak has found something."""


class Job:
    """The processes of one start of the command."""

    def __init__(self, command: CommandLine, workdir: Path, processes: int, devices: int, **limits):
        self.workdir, self.started = workdir, time.monotonic()
        self.log = workdir.with_name(f"{workdir.name}.log")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.processes, self.logs = [], []
        for i in range(processes):
            environment = command.environment()
            environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
            if processes > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                    "JAX_NUM_PROCESSES": str(processes),
                    "JAX_PROCESS_ID": str(i),
                }
            self.logs.append(workdir.with_name(f"{workdir.name}-{i}.log"))
            with self.logs[-1].open("w") as log:
                self.processes.append(
                    subprocess.Popen(
                        command.arguments(f"--workdir={workdir}", *FLAGS),
                        cwd=ROOT,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        **limits,
                    )
                )

    def said(self) -> str:
        return "".join(f"--- process {i}\n{p.read_text()}" for i, p in enumerate(self.logs))

    def running(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def until(self, ready) -> bool:
        """Waits for the moment; False when the run ended before it came."""
        while not ready():
            if not self.running():
                return False
            if time.monotonic() - self.started > LIMIT:
                self.end()
                raise Failure(f"hangs:\n{self.said()}")
            time.sleep(0.002)
        return self.running()

    def wait(self, bound: float = LIMIT) -> list[int]:
        """Exit statuses; all processes must end by themselves."""
        end = time.monotonic() + bound
        for process in self.processes:
            try:
                process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self.end()
                raise Failure(f"a process does not end in {bound} s:\n{self.said()}") from None
        return [process.returncode for process in self.processes]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def result(workdir: Path) -> dict:
    """All that a run measured."""
    summary = json.loads((workdir / "summary.json").read_text())
    files = sorted((workdir / "predictions").glob("*.parquet"))
    return {
        **{key: summary[key] for key in ("before", "after", "change", "data")},
        "metrics.jsonl": read_metrics(workdir / "metrics.jsonl"),
        **{path.name: predictions.read(path).log_scores for path in files},
    }


def compare(ours: dict, expected: dict) -> None:
    for key in expected.keys() | ours.keys():
        one, two = ours.get(key), expected.get(key)
        same = np.array_equal(one, two) if isinstance(two, np.ndarray) else one == two
        if not same:
            raise Failure(f"{key} differs from the undisturbed run's:\n{one}\n{two}")


def saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def steps_of(workdir: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    found = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def damage(checkpoint: Path, rng: random.Random) -> str:
    """A flipped bit, a cut or missing file, or half of the folder gone."""
    files = [p for p in sorted(checkpoint.rglob("*")) if p.is_file() and p.stat().st_size]
    files = [p for p in files if p != checkpoint / "commit_success.txt"]  # says nothing
    how = rng.choice(["flip", "cut", "remove", "half"])
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        if path.name == "_CHECKPOINT_METADATA":  # the time of the commit may be any
            content = content[::-1]
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "remove":
        path.unlink()
    else:
        for file in rng.sample(files, max(len(files) // 2, 1)):
            file.unlink()
    return how


class Soak:
    """Undisturbed once, then disturbed until enough kills are counted."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        self.rng = random.Random(args.seed)
        self.counts: collections.Counter = collections.Counter()
        self.command = CommandLine(folder, write_tiny_model(folder / "model"))

    def start(self, workdir: Path, **limits) -> Job:
        return Job(self.command, workdir, self.args.processes, self.args.devices, **limits)

    def undisturbed(self, name: str) -> dict:
        """A whole run; the moments of its start, its training's end and its end are noted."""
        start = time.monotonic()
        job = self.start(self.folder / name)
        job.until(lambda: "padded lengths" in job.logs[0].read_text())
        self.ready = time.monotonic() - start
        job.until(lambda: any((job.workdir / "predictions").glob("after-*")))
        self.trained = time.monotonic() - start - self.ready
        if any(job.wait()):
            raise Failure(job.said())
        self.whole = time.monotonic() - start
        return result(job.workdir)

    def prepare(self) -> None:
        empty = not os.path.isdir(os.environ["JAX_COMPILATION_CACHE_DIR"])
        # The first one compiles; the second tells how long a run takes.
        first = self.undisturbed("first") if empty else None
        self.expected = self.undisturbed("undisturbed")
        if empty:
            compare(first, self.expected)
        print(
            f"seed {self.args.seed}, {self.args.processes} process(es) of {self.args.devices} "
            f"device(s); undisturbed: {self.ready:.1f} s to start, {self.whole:.1f} s in all",
            flush=True,
        )

    def disturbed(self, workdir: Path) -> None:
        """One run, killed again and again until it is done or there were enough kills."""
        while self.counts["kills"] < self.args.kills:
            job = self.start(workdir)
            moment = self.rng.choices(list(MOMENTS), MOMENTS.values())[0]
            if not self.kill(job, moment):
                if any(job.wait()):
                    raise Failure(job.said())
                break
            if self.rng.random() < 0.3 and (found := steps_of(workdir)):
                how = damage(found[-1], self.rng)
                self.counts["newest checkpoint damaged"] += 1
                print(f"   checkpoint {found[-1].name}: {how}", flush=True)
        if not (workdir / "summary.json").exists():
            job = self.start(workdir)
            if any(job.wait()):
                raise Failure(job.said())
        compare(result(workdir), self.expected)
        self.counts["set aside"] += len(list((workdir / "checkpoints").glob("*.corrupt*")))
        self.counts["runs ended as the undisturbed one"] += 1

    def kill(self, job: Job, moment: str) -> bool:
        """Kills when the moment comes; False when the run was done before."""
        number = self.rng.choice([signal.SIGTERM, signal.SIGKILL])
        who = self.rng.randrange(len(job.processes))
        fraction = self.rng.random()
        ready = lambda: "padded lengths" in job.logs[0].read_text()  # noqa: E731
        if moment == "any time" and number == signal.SIGKILL and len(job.processes) == 1:
            # From the first moment on; before Python knows of SIGTERM, that one is no request.
            due = job.started + fraction * (self.ready + self.trained)
            came = job.until(lambda: time.monotonic() > due)
        elif moment == "any time":
            came = job.until(ready)
            due = time.monotonic() + fraction * self.trained
            came = came and job.until(lambda: time.monotonic() > due)
        elif moment == "during a save":
            come = 1 + int(3 * fraction)  # the first, second or third
            came = job.until(ready)
            while came and come:
                came = job.until(lambda: saving(job.workdir))
                come -= 1
                if come:
                    came = came and job.until(lambda: not saving(job.workdir))
        else:
            came = job.until(lambda: any((job.workdir / "predictions").glob("after-*")))
            due = time.monotonic() + fraction * max(self.whole - self.ready - self.trained - 0.5, 0)
            came = came and job.until(lambda: time.monotonic() > due)
        if not came:
            return False
        job.processes[who].send_signal(number)
        statuses = job.wait(BOUND)
        if (job.workdir / "summary.json").exists():
            return False  # it was too late
        if number == signal.SIGTERM and any(statuses):
            raise Failure(f"SIGTERM, statuses {statuses}:\n{job.said()}")
        if number == signal.SIGKILL and not all(statuses):
            raise Failure(f"SIGKILL, statuses {statuses}:\n{job.said()}")
        at = [path.name for path in steps_of(job.workdir)]
        self.counts["kills"] += 1
        self.counts[f"{signal.Signals(number).name} {moment}"] += 1
        print(
            f"{self.counts['kills']:3} {signal.Signals(number).name} of process {who} {moment}; "
            f"statuses {statuses}, checkpoints {', '.join(at) or 'none'}",
            flush=True,
        )
        return True

    def full_disk(self) -> None:
        """A save meets a full disk; with space again, the run ends as the undisturbed one."""
        workdir = self.folder / "full-disk"
        place = workdir / "checkpoints"
        place.mkdir(parents=True)
        (workdir / "config.json").write_text((self.folder / "undisturbed/config.json").read_text())
        sizes = [
            path.stat().st_size
            for path in steps_of(self.folder / "undisturbed")[-1].rglob("*")
            if path.is_file()
        ]
        whole = sum(-(-size // 4096) * 4096 for size in sizes)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={6 * whole}", "tmpfs", str(place)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
        try:
            limits = {}
            if mounted:  # one checkpoint fits, two do not
                (place / "filler").write_bytes(bytes(int(4.4 * whole)))
            else:
                size = (max(sizes) // 2, resource.RLIM_INFINITY)
                limits["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, size)
            job = self.start(workdir, **limits)
            statuses, said = job.wait(), job.said()
            if not all(statuses) or "could not be saved" not in said or "Traceback" in said:
                raise Failure(f"full disk, statuses {statuses}:\n{said}")
            line = next(line for line in said.splitlines() if "could not be saved" in line)
            print(f"full disk ({'tmpfs' if mounted else 'file size limit'}): {line}", flush=True)
            print(f"   checkpoints {[path.name for path in steps_of(workdir)]}", flush=True)
            (place / "filler").unlink(missing_ok=True)
            if any(self.start(workdir).wait()):
                raise Failure(f"after the full disk:\n{job.said()}")
            compare(result(workdir), self.expected)
            self.counts["full disk"] += 1
        finally:
            if mounted:
                subprocess.run(["umount", "-l", str(place)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--devices", type=int, default=0, help="of each process; 1, or 4 of two")
    parser.add_argument("--full-disk", type=int, default=1, help="how many times")
    parser.add_argument("--cache", default="", help="compilation cache to keep between soaks")
    args = parser.parse_args()
    args.devices = args.devices or {1: 1, 2: 4}[args.processes]
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = args.cache or f"{name}/cache"
        soak = Soak(args, Path(name))
        try:
            soak.prepare()
            number = 0
            while soak.counts["kills"] < args.kills:
                soak.disturbed(Path(name) / f"run{number}")
                number += 1
            for _ in range(args.full_disk):
                soak.full_disk()
                shutil.rmtree(Path(name) / "full-disk")
        except Failure as failure:
            sys.exit(f"FAILED: {failure}\n{dict(soak.counts)}")
        for what, count in sorted(soak.counts.items()):
            print(f"{count:4} {what}")
        print("All ended with the undisturbed run's figures, log lines and scores, exactly.")


if __name__ == "__main__":
    main()
