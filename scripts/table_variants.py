"""Try every kind of table that goes wrong elsewhere in many generated variants; write docs/table_variants.md.

python scripts/table_variants.py                 # minutes: the slow kinds train networks
python scripts/table_variants.py --seed 7 --only "decimal commas"
"""

import argparse
import secrets
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

from actlab.run_files import write_text
from variants import Kind, load_kinds

OUTPUT = Path(__file__).parents[1] / "docs" / "table_variants.md"
SEED = 20
HEAD = """# Tables that people have

Each kind of table below goes wrong elsewhere, in one way or another. For each, variants are generated at random and
what actlab makes of them is compared with what is right, by value. The tests do the same with this seed, and
`make test-slow` with a fresh one.

| kind of table | what is right | variants | right |
| --- | --- | ---: | ---: |
"""


def failures(kind: Kind, seed: int, n_variants: int | None = None) -> list[str]:
    """What went wrong, variant by variant; each has a generator of its own."""
    found = []
    for number in range(n_variants or kind.n_variants):
        generator = np.random.default_rng([seed, number])
        with tempfile.TemporaryDirectory() as folder:
            try:
                kind.variant(generator, Path(folder))
            except Exception:  # whatever it is, it is a failure of this variant
                found.append(f"{kind.title}, seed {seed}, variant {number}:\n{traceback.format_exc()}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED, help="-1 draws one, and prints it")
    parser.add_argument("--only", help="only kinds whose title holds this; the document is not written")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed >= 0 else secrets.randbelow(2**31)
    print(f"seed {seed}", file=sys.stderr)
    rows = []
    for kind in load_kinds().values():
        if asked.only and asked.only not in kind.title:
            continue
        wrong = failures(kind, seed)
        print("".join(wrong[:3]), end="")
        n_right = kind.n_variants - len(wrong)
        rows.append(f"| {kind.title} | {kind.right} | {kind.n_variants} | {n_right} |")
        print(rows[-1], flush=True)
    if not asked.only:
        command = f"\nCommand: `python scripts/table_variants.py --seed {seed}`\n"
        write_text(OUTPUT, HEAD + "\n".join(rows) + "\n" + command)


if __name__ == "__main__":
    main()
