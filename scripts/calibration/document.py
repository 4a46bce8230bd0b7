"""docs/calibration.md, from the races that were trained and the banks that are there."""

from collections.abc import Iterator, Mapping, Sequence

from calibration.bank import AT_ONCE, FOLDS, N_REPEATS, ROPE, SOURCES, Bank, Power
from calibration.scenarios import KINDS, MOST_WRONG, N_RUNS, SMALL, Judged, SaidAsGood, Scenario

INTRODUCTION = f"""# Calibration

How often is the verdict wrong where the truth is known, and how often does it find what is there? Written by

```
make calibrate
```

Every race below is trained: real networks (a layer of {SMALL.hidden[0]} units, {SMALL.folds} folds, {SMALL.max_epochs}
epochs, the best of which is kept) on a table of its own, 16 repeats of every activation, judged by the code that
judges a comparison, at the looks at 4, 8 and 16 repeats that the default budget reaches. The learning rate is given.
A race is wrong if a single one of its words is: `worse here` or `worse` of an activation that is as good in truth.
The number of a race is its seed; the numbers are 0, 1, 2, ... and were fixed beforehand. One command repeats one
race:

```
python scripts/calibrate.py --scenario {{example}} --seed 0
```

## What is raced
{{kinds}}

## False alarms
The promise, for all words of a race together: at most 5 %. Of {N_RUNS} races at most {MOST_WRONG} may be wrong: a true
share of 5 % gives more in 8 % of all calibrations."""

FALSE_ALARMS = [
    "| scenario | rows | races | wrong | share | true share is below (95 %) | seeds of the wrong ones |",
    "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
]

AS_GOOD = f"""
## Wrongly as good
In the races of the same activation under several names, one name's scores are raised by one and a half times the
region of practical equivalence: called `as good` it would be wrongly so. Networks this small scatter so much that in
16 repeats next to nothing lies within the default region of {ROPE:.0%}; wider ones show what the rule does where it can
say something. Beside it the same name without anything added, which is as good in truth.

| scenario | region | races | as good, rightly | as good, wrongly |
| --- | ---: | ---: | ---: | ---: |"""

POWER = """
## Power, at equal compute
Races drawn with replacement from real repeats of full-size networks, one network a fold in 5 folds. What the
activations differ by is taken out, so all are equal; then one is made worse by a known share of the score. *Found*: it
is called `worse here`; *wrong*: another one is. *As good*: the planted one is called so; from 3 % on, one and a half
regions, wrongly. *Corrected t*: the corrected resampled t-test (Nadeau & Bengio 2003), adjusted by Holm, of every
activation against the one with the best mean, on as many networks as the race trained."""

POWER_HEAD = [
    "| planted | budget | networks | found | wrong | as good | corrected t: found | wrong |",
    "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
]


def document(
    judged: Mapping[Scenario, Sequence[Judged]],
    as_good: Mapping[str, Sequence[SaidAsGood]],
    n_same_seeds: int,
    powers: Mapping[str, tuple[Bank, Sequence[tuple[str, Power]]]],
    n_drawn: int,
) -> str:
    """Everything that is known so far."""
    kinds = "\n".join(f"- **{kind.title}**: {kind.truth}." for kind in KINDS.values())
    example = next((scenario.name for scenario in judged), "copies-200")
    lines = [INTRODUCTION.format(kinds=kinds, example=example), "", *FALSE_ALARMS]
    lines += [_row(scenario, races) for scenario, races in judged.items() if races]
    lines += ["", *_over_all(judged), *_left_out(judged), "", *_new_tables(judged), AS_GOOD]
    lines += [
        f"| {name} | {one.rope:.0%} | {one.n_runs} | {one.ties / one.n_runs:.1%} | {one.planted / one.n_runs:.1%} |"
        for name, found in as_good.items()
        for one in found
    ]
    same = f"{n_same_seeds} of {n_same_seeds}" if n_same_seeds else "none"
    lines += ["", f"A copy on the same seeds as the best is `as good` with U = 0: {same} races.", POWER]
    for name, (bank, found) in powers.items():
        lines += ["", _bank_sentence(name, bank, n_drawn), "", *POWER_HEAD, *(_power_row(*one) for one in found)]
    return "\n".join([*lines, "", *_how_to_fill(powers), ""])


def below(wrong: int, races: int) -> float:
    """Upper end of the one-sided 95 % Clopper-Pearson interval of a share."""
    from scipy import stats

    return 1.0 if wrong == races else float(stats.beta.ppf(0.95, wrong + 1, races - wrong))


def _row(scenario: Scenario, races: Sequence[Judged]) -> str:
    wrong = [one.seed for one in races if one.wrong]
    seeds = ", ".join(map(str, wrong)) or "none"
    cells = (scenario.kind.title, scenario.n_rows, len(races), len(wrong), f"{len(wrong) / len(races):.1%}")
    return f"| {' | '.join(map(str, cells))} | {below(len(wrong), len(races)):.1%} | {seeds} |"


def _over_all(judged: Mapping[Scenario, Sequence[Judged]]) -> Iterator[str]:
    races = [one for found in judged.values() for one in found]
    if races:
        wrong = sum(bool(one.wrong) for one in races)
        yield (
            f"Over all {wrong} of {len(races)} races are wrong, {wrong / len(races):.1%} "
            f"(below {below(wrong, len(races)):.1%})."
        )


def _left_out(judged: Mapping[Scenario, Sequence[Judged]]) -> Iterator[str]:
    fewer = [scenario.name for scenario, races in judged.items() if len(races) < N_RUNS]
    if fewer:
        yield f"Fewer than {N_RUNS} races, or none, have been trained so far of {', '.join(fewer)}."


def _new_tables(judged: Mapping[Scenario, Sequence[Judged]]) -> Iterator[str]:
    """How much the rows' luck of scenarios about new rows would have misled."""
    for scenario, races in judged.items():
        if scenario.kind.is_for_new_rows and races:
            share = sum(bool(one.here) for one in races) / len(races)
            yield (
                f"On new tables of {scenario.n_rows} rows `worse here` is said in {share:.0%} of the races, and "
                "rightly: one is worse on these rows. Taken for a statement about new rows it would be wrong."
            )


def _bank_sentence(name: str, bank: Bank, n_drawn: int) -> str:
    k, n_repeats = bank.scores.shape
    text = f"**{name}**: {k} activations, {n_repeats} repeats each, {n_drawn} races drawn for every row."
    if bank.folds is None:
        text += " Scores of single folds were not kept: a fold's difference is taken to vary 5 times as much as its "
        text += "repeat's, which holds where folds' differences do not correlate."
    return text


def _power_row(budget: str, power: Power) -> str:
    shares = [power.found, power.wrong, power.as_good, power.found_by_t, power.wrong_by_t]
    if not power.planted:
        shares = [float("nan"), power.wrong, power.as_good, float("nan"), power.wrong_by_t]
    cells = ["" if share != share else f"{share:.1%}" for share in shares]
    return f"| {power.planted:.0%} | {budget} | {power.networks:.0f} | {' | '.join(cells)} |"


def _how_to_fill(powers: Mapping[str, object]) -> Iterator[str]:
    if lacking := [name for name in SOURCES if f"{name}-bank" not in powers]:
        yield f"The banks of {N_REPEATS} repeats with scores of folds are not trained yet for {' and '.join(lacking)}."
    yield (
        f"A bank is trained by the following, which may be interrupted and goes on with its next {AT_ONCE} repeats "
        f"({N_REPEATS} of {FOLDS} networks for each activation):"
    )
    yield "```"
    yield from (f"python scripts/calibrate.py --bank {name}" for name in SOURCES)
    yield "```"
