"""The table of this folder: what `./ward bench NAME…` measures. A bench is a line here and a module with ``run``.

``run()`` yields rows ``{"metric": str, "value": float, "unit": str}`` as it finds them; ``bench.__main__`` adds the
bench's name. Nothing is imported from here, so that the table can be read without the environment.
"""

from typing import Final

BENCHES: Final[dict[str, str]] = {
    "aead": "bench.aead",
    "aggregate": "bench.aggregate",
    "crypto": "bench.crypto",
    "curves": "bench.curves",
    "enrol": "bench.enrol",
    "envelope": "bench.envelope",
    "federation": "bench.federation",
    "keys": "bench.keys",
    "machine": "bench.machine",
    "pipeline": "bench.pipeline",
    "round": "bench.round",
    "start": "bench.start",
}
