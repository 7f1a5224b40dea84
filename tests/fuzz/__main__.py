"""``python -m tests.fuzz [NAME …] [--runs N] [--seconds S]``: fuzz parsers, each target in a process of its own.

libFuzzer ends its process when it is done, when an input takes too much memory, and when an exception escapes that is
not one of the target's documented refusals. So this process only loads and instruments the product once, forks for each
target, ends it when an input takes too long, and prints one line of figures from what libFuzzer wrote. Logs, the corpus
that earlier runs found, and the inputs of findings are under ``build/fuzz/NAME``.
"""

import argparse
import contextlib
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import atheris

from tests.fuzz.watch import Watch

with atheris.instrument_imports(include=["latticeward"]):
    from tests.fuzz.targets import TARGETS, Target

FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "fuzz"
MEMORY_LIMIT_MIB: Final = 768
_FIGURES: Final = re.compile(rb"^#(\d+)\t(\w+) +cov: (\d+) ft: (\d+) .*?rss: (\d+)Mb", re.MULTILINE)


def fuzz(target: Target, watch: Watch, *, runs: int, seconds: int, folder: Path, seed: int) -> None:
    """Become libFuzzer over one target; does not return."""
    corpus, seeds = folder / "corpus", folder / "seeds"
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir()
    for number, raw in enumerate(target.seeds()):
        (seeds / f"{number:02}").write_bytes(raw)

    def one_input(data: bytes) -> None:
        watch.begin(data)
        with contextlib.suppress(*target.refusals):
            target.call(data)

    def mutate(data: bytes, limit_bytes: int, chance: int) -> bytes:
        watch.begin(data)
        return target.mutate(data, limit_bytes, chance)

    arguments = [
        "tests.fuzz",
        f"-runs={runs}",
        f"-max_total_time={seconds}",
        f"-max_len={target.limit_bytes}",
        "-timeout=100000",  # never; see watch.py
        f"-rss_limit_mb={MEMORY_LIMIT_MIB}",
        f"-artifact_prefix={folder}/",
        f"-seed={seed}",
        "-len_control=0",
        "-print_final_stats=1",
        str(corpus),
        str(seeds),
    ]
    atheris.Setup(arguments, one_input, custom_mutator=mutate)
    atheris.Fuzz()


def run(target: Target, *, runs: int, seconds: int, folder: Path, seed: int) -> bool:
    """Fuzz one target in a child process and print what came of it; True if nothing was found."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    watch = Watch(target.limit_bytes)
    started = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with log.open("wb") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        fuzz(target, watch, runs=runs, seconds=seconds, folder=folder, seed=seed)
        sys.exit("libFuzzer returned")
    code, used = watch.wait(child, folder)
    took = time.monotonic() - started
    written = log.read_bytes()
    figures = {kind.decode(): tuple(map(int, rest)) for count, kind, *rest in _FIGURES.findall(written)}
    counts = [int(count) for count, *_ in _FIGURES.findall(written)]
    inputs = counts[-1] if counts else 0
    first, last = figures.get("INITED", (0, 0, 0)), figures.get("DONE", (0, 0, 0))
    verdict = "nothing found" if code == 0 else f"FOUND SOMETHING, exit status {code}: see {log}"
    print(
        f"{target.name:18}{inputs:>9} inputs {took:7.1f} s ({used:.1f} s of processor)  edges {first[0]} to {last[0]},"
        f" features {first[1]} to {last[1]}, {last[2]} MiB: {verdict}",
        flush=True,
    )
    if code != 0:
        print(written[-4_000:].decode("utf-8", "replace"), flush=True)
    return code == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status is 1 if a target found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs for each target (%(default)s)")
    parser.add_argument("--seconds", type=int, default=0, help="end each target after so long; 0 for no limit")
    parser.add_argument("--seed", type=int, default=0, help="of libFuzzer's choices; 0 takes the clock")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where logs, corpora and findings go (%(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - TARGETS.keys():
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")  # the X.509 library warns of odd certificates before it refuses them
    wanted = options.names or list(TARGETS)
    clean = [
        run(
            TARGETS[name],
            runs=options.runs,
            seconds=options.seconds,
            folder=options.folder / name,
            seed=options.seed,
        )
        for name in wanted
    ]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
