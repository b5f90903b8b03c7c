"""Alternates the engines on each case and prints a table; run.sh installs and builds what it needs."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from cases import choose

HERE = Path(__file__).parent
OURS = "zoo"
PEERS = ["ort", "torch", "torch-cl", "torch-folded", "torch-folded-cl", "torch-compiled"]
# Those that take long to start, or are never the best in PyTorch: not with --quick.
SLOW = ["torch-folded", "torch-compiled"]
# With --quick, a row that took so long already gets no more than three rounds.
QUICK_SECONDS = 8
# Largest difference from PyTorch's result, relative to its largest value. Winograd's rounding and that of
# weights folded in f32 stay far below; a layer left out does not.
TOLERANCE = 2e-3
PAUSE = 0.02  # lets the threads of the engine before go to sleep
# A quiet round: others took no more than this share of the processors' time, and the engines took no longer, on
# average, than this much above each one's fastest round: what other guests of the machine's host do shows only
# so. Rounds that were not quiet are repeated, up to so many times those that are wanted.
QUIET = 0.04
STEADY = 0.10
PATIENCE = 6


class Clock:
    """Processor time since its start: all of it, and that of some processes."""

    def __init__(self, engines):
        self.engines, self.start = engines, time.perf_counter()
        self.all, self.own = self.spent()

    def spent(self):
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        busy = sum(fields) - fields[3] - fields[4]  # all but idle and waiting, what the hypervisor stole included
        pids = [os.getpid(), *(e.process.pid for e in self.engines)]
        stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
        return busy, sum(int(stat[11]) + int(stat[12]) for stat in stats)

    def others(self):
        """Share of the processors that other processes took."""
        busy, own = self.spent()
        ticks = (time.perf_counter() - self.start) * os.sysconf("SC_CLK_TCK") * os.cpu_count()
        return max(0.0, (busy - self.all - (own - self.own)) / ticks)


class Failed(Exception):
    pass


class Engine:
    """A process of its own for one case."""

    def __init__(self, kind, threads, args):
        own = kind == OURS
        command = [args.ours] if own else [sys.executable, HERE / "engine.py", kind, str(threads)]
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        env.update(RAYON_NUM_THREADS=str(threads), CANDLE_NUM_THREADS=str(threads))
        env.update(TORCHINDUCTOR_CACHE_DIR=str(args.home / "inductor"), RUST_BACKTRACE="0")
        self.kind, self.has_memory = kind, kind != "torch-compiled"
        log = open(args.home / f"{kind}.log", "w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env
        )
        self.process.stdin.write("ready\n")
        self.process.stdin.flush()
        self.log = log.name

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            last = [line for line in Path(self.log).read_text().splitlines() if line.strip()][-1:]
            raise Failed(f"{self.kind} ended: {''.join(last)} (all of it in {self.log})")
        return line.strip()

    def load(self, spec, folder):
        """Whether the engine has the case. Memory counts from here."""
        self.answer()
        self.before = self.memory("VmRSS")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak so far is forgotten
        return self.ask("load", spec, *([] if self.kind == OURS else [folder])) == "ok"

    def memory(self, field):
        """MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024

    def run(self, n):
        """Median milliseconds of n runs, and the mean of their processor time, after as many that do not count."""
        self.ask("run", n)
        before = self.processor_time()
        times = [float(t) for t in self.ask("run", n).split()]
        spent = self.processor_time() - before
        time.sleep(PAUSE)
        return statistics.median(times), spent / n

    def processor_time(self):
        """Milliseconds of all threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6

    def result(self, folder):
        path = Path(folder) / f"{self.kind}.f32"
        self.ask("save", path)
        values = np.fromfile(path, np.float32)
        path.unlink()
        return values

    def end(self):
        self.process.kill()
        self.process.wait()


def attempt(engine, work):
    """Its result, or none where the engine fails, which is then said."""
    try:
        return work()
    except Failed as failure:
        say(f"    {failure}")
        engine.end()
        return None


def measure(name, spec, threads, net, folder, args):
    """One row, or none where our side has no such net."""
    kinds = [kind for kind in PEERS if is_meant(kind, spec, net, args)]
    engines = [Engine(kind, threads, args) for kind in [OURS, *kinds]]
    try:
        if not engines[0].load(spec, folder):
            say(f"  {name}: skipped, the zoo's example has no '{spec}'")
            return None
        engines[1:] = [e for e in engines[1:] if attempt(e, lambda e=e: e.load(spec, folder))]
        for engine in engines:
            engine.run(2)
        rounds, budget = (5, 40) if args.quick else (9, 80)
        runs = {e: max(2, min(50, int(budget / e.run(2)[0]))) for e in engines}
        measured, started = [], time.perf_counter()
        patience = 1 if args.cpu else PATIENCE
        while len(measured) < rounds * patience and sum(map(is_quiet, weigh(measured))) < rounds:
            if args.quick and len(measured) >= 3 and time.perf_counter() - started > QUICK_SECONDS:
                break
            measured.append(one_round(engines, runs, len(measured)))
        measured = sorted(weigh(measured), key=lambda r: (not is_quiet(r), r["slower"]))[:rounds]
        memory = {e.kind: e.memory("VmHWM") - e.before for e in engines if e.has_memory}
        wall = {e.kind: statistics.median(r["ms"][e.kind][0] for r in measured) for e in engines}
        cpu = {e.kind: statistics.median(r["ms"][e.kind][1] for r in measured) for e in engines}
        differences = compare(engines, folder)
    finally:
        for engine in engines:
            engine.end()
    ms = cpu if args.cpu else wall
    torch = {kind: t for kind, t in ms.items() if kind.startswith("torch")}
    best_torch = min(torch, key=torch.get) if torch else None

    def over_zoo(kind):
        """Round by round: what slows a whole round changes no ratio."""
        if kind not in ms:
            return None
        times = [[r["ms"][engine][bool(args.cpu)] for engine in (kind, OURS)] for r in measured]
        return statistics.median(theirs / ours for theirs, ours in times)

    peak = statistics.median(r["peak"] for r in measured)
    return {
        "case": name,
        "spec": spec,
        "threads": threads,
        "gflop": net["gflop"],
        "fma_peak_gflops": peak,
        "share_of_peak": net["gflop"] / (ms[OURS] / 1e3) / peak,
        "ms": wall,
        "cpu_ms": cpu,
        "mb": memory,
        "ort_over_zoo": over_zoo("ort"),
        "torch_over_zoo": over_zoo(best_torch),
        "best_torch": best_torch,
        "difference": differences,
        "others": statistics.median(r["others"] for r in measured),
        "slower": statistics.median(r["slower"] for r in measured),
        "is_quiet": sum(map(is_quiet, measured)) > len(measured) / 2,
    }


def one_round(engines, runs, i):
    """Every engine once, each time another one first."""
    clock = Clock(engines)
    peak = float(engines[0].ask("peak"))
    first = i % len(engines)
    ms = {e.kind: e.run(runs[e]) for e in engines[first:] + engines[:first]}
    return {"ms": ms, "peak": peak, "others": clock.others()}


def weigh(rounds):
    """The rounds, each with how much longer the engines took than in their fastest ones, all counting alike."""
    fastest = {kind: min(r["ms"][kind][0] for r in rounds) for kind in (rounds[0]["ms"] if rounds else ())}
    slower = lambda r: statistics.mean(r["ms"][kind][0] / least - 1 for kind, least in fastest.items())
    return [{**r, "slower": slower(r)} for r in rounds]


def is_quiet(r):
    return r["others"] <= QUIET and r["slower"] <= STEADY


def is_meant(kind, spec, net, args):
    """Whether an engine has its own way with a case."""
    if spec.startswith("train:"):
        return kind in ("torch", "torch-cl")
    if kind in SLOW and args.quick:
        return False
    return net["has_norms"] or "folded" not in kind


def compare(engines, folder):
    """Largest difference of each result from PyTorch's, relative to its largest value."""
    results = {e.kind: e.result(folder) for e in engines}
    expected = results.pop("torch")
    scale = np.abs(expected).max()
    if not np.isfinite(expected).all() or scale < 1e-6:
        raise SystemExit(f"PyTorch's result is no measure: its largest value is {scale}")
    differences = {}
    for kind, values in results.items():
        same = values.shape == expected.shape and np.isfinite(values).all()
        differences[kind] = float(np.abs(values - expected).max() / scale) if same else float("inf")
    return differences


def table(rows, time):
    lines = [
        "| case | threads | GFLOP | zoo ms (MB) | ONNX Runtime ms (MB) | best PyTorch ms (MB) | which | ORT / zoo | PyTorch / zoo | FMA peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        def engine(kind):
            if kind not in row[time]:
                return "–"
            memory = row["mb"].get(kind)
            return f"{row[time][kind]:.2f}" + (f" ({memory:.0f})" if memory is not None else "")

        def ratio(key):
            return f"{row[key]:.2f}" if row[key] else "–"

        which = (row["best_torch"] or "–").removeprefix("torch-").replace("torch", "eager")
        lines.append(
            f"| {row['case']} | {row['threads']} | {row['gflop']:.2f} | {engine(OURS)} | {engine('ort')} "
            f"| {engine(row['best_torch'])} | {which} | {ratio('ort_over_zoo')} | {ratio('torch_over_zoo')} "
            f"| {100 * row['share_of_peak']:.0f} %{'' if row['is_quiet'] or time != 'ms' else ' (busy)'} |"
        )
    return "\n".join(lines)


def machine():
    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else "unknown processor"


def commit():
    git = lambda *words: subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short=10", "HEAD") + (", with changes" if git("status", "--porcelain", "-uno") else "")


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description="times PyTorch, ONNX Runtime and the zoo on the same nets")
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds, nothing compiled: under five minutes")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--threads", default="1,2", help="thread counts (default: 1,2)")
    parser.add_argument("--cases", help="parts of cases' names or specs, separated by commas")
    parser.add_argument("--cpu", action="store_true", help="compare processor time, on one thread: for a busy machine")
    parser.add_argument("--ours", type=Path, required=True, help="the zoo's example `peers`")
    parser.add_argument("--home", type=Path, required=True, help="a folder for nets, caches and logs")
    args = parser.parse_args()
    if args.cpu and args.threads != "1":
        parser.error("--cpu needs --threads 1: a thread that waits for others takes processor time too")
    args.ours = args.ours.resolve()
    rows, wrong = [], []
    for name, spec in choose(args.cases, args.quick):
        say(name)
        folder = args.home / "nets" / spec.replace("/", "_").replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, HERE / "engine.py", "export", spec, folder], check=True, stdout=sys.stderr)
        net = json.loads((folder / "net.json").read_text())
        for threads in map(int, args.threads.split(",")):
            try:
                row = measure(name, spec, threads, net, folder, args)
            except Failed as failure:
                wrong.append(f"{name}: {failure}")
                say(f"  {wrong[-1]}")
                break
            if row is None:
                break
            rows.append(row)
            say(
                "  " + ", ".join(f"{kind} {ms:.2f}" for kind, ms in row["cpu_ms" if args.cpu else "ms"].items())
                + f" ms, {threads} threads, {100 * row['others']:.0f} % taken by others, "
                + f"{100 * row['slower']:.0f} % above the fastest rounds"
            )
            wrong += [
                f"{name}: {kind} differs by {d:.1e}" for kind, d in row["difference"].items() if not d <= TOLERANCE
            ]
        if args.json:
            about = {"machine": machine(), "commit": commit(), "rows": rows}
            args.json.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    print(table(rows, "cpu_ms" if args.cpu else "ms"))
    print(f"\nCommit {commit()}; {machine()}.")
    if args.cpu:
        print("\nMilliseconds of processor time, not by the clock.")
    elif not all(row["is_quiet"] for row in rows):
        print(
            f"\nBusy: other processes took more than {100 * QUIET:.0f} % of the processors, or the engines took over "
            f"{100 * STEADY:.0f} % longer than in their fastest rounds: such times tell little."
        )
    for fault in wrong:
        say(f"wrong: {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
