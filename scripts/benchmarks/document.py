"""docs/benchmarks.md from the JSON of a run: what it was to show, its sections, and what did not help."""

from collections.abc import Mapping
from typing import Any

from benchmarks import (
    choices,
    command,
    contest,
    gpu,
    growth,
    large,
    phases,
    roofline,
    search,
    startup,
    targets,
)
from benchmarks.markdown import Section

# in the order in which they are measured, what matters most first
SECTIONS: dict[str, Section] = {
    "contestants": contest.SECTION,
    "comparison": command.SECTION,
    "startup": startup.SECTION,
    "limits": roofline.SECTION,
    "phases": phases.SECTION,
    "search": search.SECTION,
    "growth": growth.SECTION,
    "large": large.SECTION,
    "choices": choices.SECTION,
    "gpu": gpu.SECTION,
}
INTRODUCTION = """# Benchmarks

Written by `COMMAND` (the JSON of the run, `--render` writes this page from it again): mode MODE, medians of ROUNDS
rounds in which the contestants take turns where a section does not say otherwise, with the lowest and the highest in
brackets.

Another machine need not meet all of it: an earlier version on 2 cores of a Xeon with AVX-512 and busy neighbours had 45
to 49 % of the matrix product at batch 128 (62 to 63 with one quiet core) and 1.9 times (g), but 3.1 times (c) of the
default comparison.
"""
TRIED = """## What was tried and did not help

Measured while actlab was built, on two cores, on the article's network unless said otherwise.

- **Autograd.** Its graph and its fresh gradients cost about as much as the arithmetic of four members, so under
  autograd stacks had to be large, and large ones leave the cache at every step: 195 us a member and step of both cores
  with 64 members in each thread, 282 with 4. Derivatives written out, with 4: 133 (ReLU; a slower day than those of the
  tables).
- **The same written out in Python.** 208 us with one thread, 254 with two: they wait for each other's interpreter lock
  at every kernel. TorchScript holds none.
- **Autograd inside TorchScript**: 227 us for whole networks; 167 for the activations alone, so these have their
  derivatives in a table too.
- **Other ways to gather a batch** of 128 rows x 288 (one core of a Xeon with AVX-512): `index_select` 16 to 17 us a
  member, `embedding` 19, `gather` 21, `embedding_bag` 22, indexing 62. It waits for memory that is written.
- **The bias after the product instead of in it** (`bmm` and `add_` for `baddbmm`): 75 and 76 us a member for the first
  layer at batch 128, the same within the noise, and other bits for some shapes.
- **Huge pages** (glibc's `hugetlb` tunable, `MADV_COLLAPSE` after the first epoch), default networks on that Xeon: 229
  to 238 us a member and step against 243 to 257, and in another try 249 to 343 against 248 to 363.
- **Dropout masks drawn by each stack**: 35 to 105 us a member and step. Members of one split and seed have equal masks,
  whatever their activation and rate, so an epoch's are drawn once for all stacks.
- **Two threads inside each product.** Matrices this small gain little from them. Two Python threads, each with a stack
  and one thread of arithmetic, gain nearly twofold; processes of one thread each, in the table above, pay for their
  imports and for a copy of the data besides.
- **Adam written by hand with a vector of learning rates**, one for each member: 80 to 130 us a member and step. Stock
  fused AdamW with a parameter group for each run of equal learning rates: 34 to 50 us. `foreach`: 96 to 170 us.
- **`torch.func.vmap` over `functional_call`**: 340 us a member and step with the fused optimiser, 630 without, where
  explicit stacks under autograd took 145 to 250 on one core.
- **Weights as (P, out, in)**, as `nn.Linear` has them: the gradient of the first layer then needs a copy that turns it
  round, 115 us a member and step. They lie (P, in, out).
- **One flat (P, D) row a member with views for the layers**: autograd makes a zero-padded gradient of the whole row for
  every view, twice the time. Every tensor is a parameter of its own.
- **`torch.compile`**: no gain on a CPU at this size, and 10 to 39 s to compile.
- **Lightning's `barebones=True`**: nothing over switching features off one by one. What costs is the call per batch, so
  a Lightning batch is an epoch of the whole population.
- **`MKL_CBWR=AUTO`** for reproducible products: no difference. (Keeping freed memory does help, see above.)
- **scikit-learn's `OneHotEncoder` on columns of text**: it looks at every cell for NaN in Python, 7.6 s of the start of
  a House Prices comparison under a profiler. Columns are factorised first, and it only decides which categories are
  rare where there are many: 0.2 s.
- **Validation a few members at a time from Python**: 16.7 s of both cores in a House Prices comparison instead of 13.1
  for whole stacks. Compiled like a training step, a few members at a time is the faster way.
- **Whole stacks as what threads share**: training of a House Prices comparison kept both cores at work for 96 % of its
  time; now that its chunks are shared out, those that took longest first, for 97 to 98 %.
- **TorchScript's optimiser**: the first two epochs of thirteen activations took 891 ms with it, 386 without, and later
  ones the same. Steps run as they are written.
- **Chunks of whole runs of equal learning rate** (ten members instead of seven), whose batches and masks lie side by
  side and need no copy: ten epochs of the default comparison took 15.4 to 16.3 s, without 15.5 to 16.0.
- **Python's search for cycles, as often as it is set to**: 0.7 s of the imports and 1.5 s of the exit. It looks after
  100,000 objects instead of 700, and not at all on the way out.
- **A layer's gradient and its update a few members at a time**, so that the gradient need not leave the second-level
  cache (first layer of the article's network, eight members, both cores of an EPYC at work): 143 to 165 us a member in
  blocks of one to four, 157 and 160 without; at batch 128 345 to 630, and 359 and 459 without.
- **Batches gathered by every member**: 7 % of a step of the default networks, each batch from another part of memory.
  Twenty-six members of a default comparison see the same batches, which are gathered once now. Where fewer than four
  share them, as in the article's networks of many seeds, each gathers its own, from rows that are in the cache.
- **Chunks of one size on every machine**: of the article's networks an EPYC trained 2,877 a minute with chunks of 8 MB
  and 2,361 with 16; a Xeon with 300 MB of last-level cache 3,442 with 10 and 3,937 with 16.
- **Chunks of 4 to 24 MB for the default networks**: the same within the noise of a quiet machine (3.1 to 3.3 ms of two
  cores a network and epoch); the article's networks decide.
- **More than two threads for initial weights**: drawing is half arithmetic, half Python. On 16 cores, 1,024 of the
  article's networks took 0.70 s in one thread, 0.45 in two, 0.67 in four, 0.93 in eight.
- **Kernels launched one by one on a GPU** (an NVIDIA H200 with 16 cores, torch 2.11): the 650 members
  of the default comparison trained in 43.9 s, as recorded steps in 7.3 s, to the same bits; 64 of the article's
  networks in 1.10 and 0.34 s. From 2,048 of these in one stack on, arithmetic decides and both are equal.
- **Letting go of a GPU's members at once, or late**: with a stack recorded anew once a tenth of its members had gone
  the same 650 took 10.1 s, once a quarter had 7.3 s, once half had 7.8 s.
- **AdamW that finds its numbers in the cache**: a square root and two divisions decide, 0.75 to 0.9 ns a parameter on
  one core of that Xeon from 54,000 to 2,160,000 of them, a sixth of a step of the default networks.
- **A step count for each tensor**, as torch's AdamW keeps them: adding one to some fifteen of them cost 4 to 5 % of a
  step. Tensors of a few members share theirs.
- **scikit-learn's `SimpleImputer` for medians**: by way of masked arrays, 26 of the 116 s of a comparison on 300,000
  rows x 100 columns, and its peak of memory. `numpy.nanmedian` finds the same numbers.
- **Initial weights in Lightning's `configure_model`**: Lightning looks at every call of torch there, thousands of them.
  They are drawn in `setup`.
"""


def render(results: Mapping[str, Any]) -> str:
    """The document; a section that was not measured says so."""
    machine = results["machine"]
    commands = "`, then `".join(results["commands"])
    head = INTRODUCTION.replace("COMMAND", commands).replace("MODE", results["mode"])
    parts = [
        head.replace("ROUNDS", str(results["rounds"])),
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_bytes'] / 2**30:.0f} GiB of memory, "
        f"{machine['system']}; load before the start {machine['load_before']:.1f}; {results['date']}, "
        f"{sum(results['section_seconds'].values()) / 60:.0f} minutes.\n",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + ".\n",
        targets.render(results["sections"]),
    ]
    for name, section in SECTIONS.items():
        found = results["sections"].get(name, {"measured": False})
        text = _filled(section.text, found)
        if found.get("measured", True):
            parts += [text, section.render(found)]
        else:
            parts += [text, f"Not measured{': ' + found['why'] if 'why' in found else ''}.\n"]
    return "\n".join([*parts, TRIED])


def _filled(text: str, found: Mapping[str, Any]) -> str:
    """The words in capitals that a section's text leaves open."""
    for word in ("MEMBERS", "EPOCHS", "ROUNDS"):
        text = text.replace(word, str(found.get(word.lower(), "the")))
    return text.replace("LONG_S", str(growth.LONG_S)).replace("PATIENCE", str(search.PATIENCE))
