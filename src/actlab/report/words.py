"""What is said of a run: numbers as they are read, the answer, what belongs beside it, and a report's sentences.

Works on the keys of summary.json as `json` reads them: a number that was not finite is None.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actlab.data.target import Target
from actlab.printed_tables import is_number
from actlab.report.finished import FinishedRun
from actlab.run_files import RunDirectory
from actlab.verdict.race import LOOKS, Terms, detectable, look_reached
from actlab.verdict.summary import winner_row
from actlab.verdict.what_matters import sentence

# p-values are not told apart below
SMALLEST_P = 1e-4
# Scores with more decimals, or from here on, are written with a power of ten.
MOST_DECIMALS, LARGEST = 12, 1e15
# A race's budget is no larger; a grid has none.
MOST_NETWORKS = 2**61


def decimals_for(value: float) -> int:
    """Decimals that show four significant digits of `value`: 4 for 0.1271, 1 for 123.4, 0 for 35000."""
    if not is_number(value) or value == 0:
        return 4
    return max(0, 3 - math.floor(math.log10(abs(value))))


def fixed(value: float | None, decimals: int) -> str:
    """A score with so many decimals and separated thousands; a dash where there is none. One that would have too many
    digits, or none but zeros, has four and a power of ten."""
    if not is_number(value):
        return "-"
    is_extreme = decimals > MOST_DECIMALS or abs(value) >= LARGEST or 0 < abs(value) < 10.0**-decimals
    return f"{value:.3e}" if is_extreme else f"{value:,.{decimals}f}"


def four_digits(value: float) -> str:
    """A score that stands alone, in four significant digits: 0.1271, 123.4, 35,000."""
    return fixed(value, decimals_for(value))


def three_digits(value: float | None) -> str:
    """Three significant digits, as learning rates have: 0.003, 3e-05; a dash where there is no number."""
    return f"{value:.3g}" if is_number(value) else "-"


def short_number(value: float) -> str:
    """A value of any size in three or four characters where it can be: 0.127, 12.3, 4.1e5."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return fixed(value, max(0, 3 - (len(str(int(abs(value)))) if abs(value) >= 1 else 0)))
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def p_value(p: float, bound: str = "<") -> str:
    """`p = 0.034`; of a very small one only its bound, `p < 0.0001`."""
    return f"p = {p:.2g}" if p > SMALLEST_P else f"p {bound} {SMALLEST_P:g}"


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def listed(names: Sequence[str], n_shown: int = 3) -> str:
    """`a`, `a and b`, `a, b and c`, or `a, b, c and 4 others`; one more than `n_shown` is named, not counted."""
    if len(names) > n_shown + 1:
        return f"{', '.join(names[:n_shown])} and {len(names) - n_shown} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def percent(share: float | None, sign: str = "") -> str:
    """A share as `2.4 %`, `24 %`, `0.03 %`; with the sign `+` a difference, `+2.4 %`; a dash where there is none."""
    if not is_number(share):
        return "-"
    size = abs(100 * share)
    # one digit of what would be read as nothing: an interval that excludes 0 is not shown to begin there
    decimals = 0 if size >= 10 else 1 if size >= 0.05 or size == 0 else min(6, math.ceil(-math.log10(size)))
    return f"{100 * share:{sign},.{decimals}f} %"


def at_most(share: float) -> str:
    """A bound, rounded up to a tenth of a percent."""
    return f"{math.ceil(1000 * share - 1e-6) / 10:,.1f} %"


def about(seconds: float) -> str:
    """`20 seconds`, `12 minutes`, `3.5 hours`: a time that is still to come and known only roughly."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds / 10)) * 10} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.2g} hours"


def two_digits(count: float) -> str:
    """A count that is known only roughly: 8,214 as 8,200."""
    size = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return f"{size * math.ceil(count / size):,}"


def score_decimals(summary: Mapping[str, Any]) -> int:
    """Decimals of a run's scores: those of the winner's."""
    return decimals_for((winner_row(summary) or {"mean": 0.1})["mean"])


def compared(summary: Mapping[str, Any], against: str = "best") -> dict[str, Mapping[str, Any]]:
    """Activation to what it is against the best, or against the baseline; empty where nothing was tested."""
    return {str(one["b"]): one for one in summary.get("comparisons") or [] if one["against"] == against}


def answer(summary: Mapping[str, Any]) -> str:
    """One sentence: the best setting, its score and what it can cost, and what every other activation is against it.

    Where most are not settled it opens with what is known, the most that the best can cost. An order that nothing was
    tested of is called one, with the reason.
    """
    best = winner_row(summary)
    if best is None:
        trained = sum(row.get("n_members") or 0 for row in summary["ranking"])
        return f"No activation can be recommended on this data: none of the {trained:,} networks gave a usable score."
    setting = f"On this data {best['activation']} at learning rate {three_digits(best['learning_rate'])}"
    metric, score = Target.of_metric(summary["metric"]).metric_name, fixed(best["mean"], decimals_for(best["mean"]))
    others = [str(row["activation"]) for row in summary["ranking"] if row["activation"] != best["activation"]]
    if not others:
        return f"{setting} scores {score} ({metric}); nothing was compared with it."
    found = compared(summary)
    if not found:
        return f"{setting} has the lowest {metric} ({score}), ahead of {listed(others)}; {untested(summary)}."
    by_verdict: dict[str, list[str]] = {}
    for name in others:
        by_verdict.setdefault(found[name]["verdict"], []).append(name)
    cost, whom = best.get("cost_at_most"), others[0] if len(others) == 1 else f"the best of the {len(others) + 1}"
    head = f"{setting} has the lowest {metric} ({score})"
    if is_number(cost) and 2 * len(by_verdict.get("not settled", [])) > len(others):
        whichever = "" if len(others) == 1 else ", whichever that is"
        head = f"{setting} ({metric} {score}) costs at most {at_most(cost)} against {whom}{whichever}"
    elif is_number(cost) and cost > 0:
        head += f" and costs at most {at_most(cost)} against {whom}"
    return "; ".join([head, *_clauses(summary, by_verdict, len(others))]) + "."


# In the order in which the answer has them.
VERDICTS = ("as good", "worse", "worse here", "not settled", "diverged")


def _clauses(summary: Mapping[str, Any], by_verdict: Mapping[str, Sequence[str]], n_others: int) -> list[str]:
    more = {"worse here": _rows_needed, "not settled": _repeats_needed}
    clauses = []
    for verdict in VERDICTS:
        if names := by_verdict.get(verdict, []):
            whom = f"all {n_others} others" if len(names) == n_others > 4 else listed(names)
            what = verdict if verdict == "diverged" else f"{'is' if len(names) == 1 else 'are'} {verdict}"
            clauses.append(f"{whom} {what}{more[verdict](summary, names) if verdict in more else ''}")
    return clauses


def _rows_needed(summary: Mapping[str, Any], names: Sequence[str]) -> str:
    """How many rows would show for new rows what is shown for these; nothing where more repeats might."""
    protocol, found = summary.get("protocol") or {}, compared(summary)
    n_units = protocol.get("n_units") or protocol.get("n_rows") or 0
    needed = sorted(n for name in names if is_number(n := found[name].get("rows_needed")) and n > n_units)
    if not needed:
        return ""
    ends = list(dict.fromkeys(map(two_digits, (needed[0], needed[-1]))))
    whose = "" if len(needed) == len(names) else f" of {len(needed)} of them"
    return f" (about {' to '.join(ends)} {unit(summary)} would show it{whose} for {of_rows(summary, 'new rows')})"


def unit(summary: Mapping[str, Any]) -> str:
    """What more data of this kind are made of: rows, distinct rows, groups of rows that belong together, or stretches
    of time as long as a twentieth of what was tested."""
    return str((summary.get("protocol") or {}).get("unit") or "rows")


def of_rows(summary: Mapping[str, Any], covers: str) -> str:
    """`new rows` or `these rows`, as it is on this table: new groups, later rows, these splits."""
    if covers == "new rows":
        return {"groups": "new groups", "stretches of time": "later rows"}.get(unit(summary), covers)
    return "these splits" if (summary.get("protocol") or {}).get("has_given_splits") else covers


def _repeats_needed(summary: Mapping[str, Any], names: Sequence[str]) -> str:
    own = [found for name, found in compared(summary).items() if name in names]
    needed = [found["repeats_needed"] for found in own if is_number(found.get("repeats_needed"))]
    if not needed:
        return "" if _is_spent(summary) else ", and by what is known more repeats would not tell"
    seconds = [found["seconds_needed"] for found in own if is_number(found.get("seconds_needed"))]
    time = f", about {about(max(seconds))} here," if seconds else ""
    whom = ("it" if len(names) == 1 else "them") if len(needed) == len(names) else f"{len(needed)} of them"
    up_to = "" if len(set(needed)) == 1 else "up to "
    return f": {up_to}{max(needed)} more repeats{time} would settle {whom}"


def untested(summary: Mapping[str, Any]) -> str:
    """Why nothing was tested, as the end of a sentence."""
    best, is_search = winner_row(summary), summary.get("command") == "search"
    if is_search:
        return "a search gives activations unequal numbers of trials, so nothing was tested"
    if len(summary["ranking"]) < 2:
        return "there is nothing to compare with"
    if (summary.get("protocol") or {}).get("protocol") == "grid" and best is not None:
        n = best.get("n") or 0
        return f"{n} repeat{'s are' if n != 1 else ' is'} too few for a verdict, compare.repeats {LOOKS[0]} gives one"
    return "too little was finite for a test"


def _is_spent(summary: Mapping[str, Any]) -> bool:
    """Whether the last look of a race was taken, so that no error is left for another."""
    return int((summary.get("protocol") or {}).get("repeats_done") or 0) >= LOOKS[-1]


# What must be known to read a verdict; the page, the terminal's reader and docs/read_the_report.md have the same words.
WHAT_THE_WORDS_MEAN = (
    "Worse here: on these rows it is worse whatever the seeds and folds; as good: choosing it costs at most {rope} of "
    "the score; not settled: neither is shown yet, and more repeats, which cost only time, can.",
    "Worse: it is worse on new rows of the same source as well; where it is only worse here, more rows can tell, and "
    "repeats cannot.",
    "All words of a run hold together, at 95 %, for this table and its source; what holds on other tables, only a "
    "comparison of several data sets can say.",
)


GIVEN_SPLITS = "on these splits it is worse whatever the seeds, while new training rows are not covered"


def what_the_words_mean(summary: Mapping[str, Any]) -> list[str]:
    """`WHAT_THE_WORDS_MEAN` where something was tested; for groups, in time, and for splits that are given, what is so
    there."""
    rope = percent((summary.get("protocol") or {}).get("rope"))
    said = "\n".join(WHAT_THE_WORDS_MEAN).format(rope=rope) if compared(summary) else ""
    if of_rows(summary, "these rows") == "these splits":
        said = said.replace("on these rows it is worse whatever the seeds and folds", GIVEN_SPLITS)
    if unit(summary) == "groups":
        said = said.replace("new rows", "new groups").replace("more rows", "more groups")
    if unit(summary) == "stretches of time":
        said = said.replace("new rows", "later rows").replace("more rows", "more time")
    return said.split("\n") if said else []


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Sentences that belong beside the answer: what averaging gives, the references, whether a network without any
    activation does as well, what matters more, edges of the range, divergence, and how the run ended and goes on."""
    found = [_scores_beside(summary), _on_test_file(summary), _linear(summary), sentence(summary.get("what_matters"))]
    if at_edge := [row["activation"] for row in summary["ranking"] if row.get("edge_of_range")]:
        rates = "its best learning rate lies" if len(at_edge) == 1 else "their best learning rates lie"
        found.append(f"{listed(at_edge)}: {rates} at the edge of the range tried, so a wider range may do better.")
    diverged = {row["activation"]: row["diverged"] for row in summary["ranking"] if row.get("diverged")}
    if total := sum(diverged.values()):
        counts = listed([f"{name} {count}" for name, count in diverged.items()], 6)
        found.append(f"{total} network{'s' if total > 1 else ''} diverged: {counts}.")
    return [said for said in (*found, how_to_go_on(summary)) if said]


def _scores_beside(summary: Mapping[str, Any]) -> str:
    known = _scores(summary, (summary.get("ensemble") or {}).get("test_score"), summary.get("references") or {})
    which = "test rows of the later half of the folds" if unit(summary) == "stretches of time" else "same test rows"
    return f"On the {which}: {known}." if known else ""


def _on_test_file(summary: Mapping[str, Any]) -> str:
    """The scores on the file of `data.test_csv`; empty where there is none."""
    if not (found := summary.get("test_file") or {}):
        return ""
    known = _scores(summary, found.get("shipped"), found)
    return f"On the {found['n_rows']:,} rows of {found['csv']}, which no choice has seen: {known}."


def _scores(summary: Mapping[str, Any], shipped: float | None, references: Mapping[str, Any]) -> str:
    """Scores of the model and of the references on the same rows."""
    best = winner_row(summary)
    named = {
        "the shipped networks averaged": shipped,
        "ridge": references.get("ridge"),
        "gradient boosting": references.get("hist_gradient_boosting"),
        "the median": references.get("median"),
    }
    decimals = decimals_for(best["mean"] if best else named["the median"] or 1.0)
    return ", ".join(f"{name} {fixed(score, decimals)}" for name, score in named.items() if is_number(score))


def _linear(summary: Mapping[str, Any]) -> str:
    """What the gain over a linear model is at most, where the run shows that; a test without power shows nothing."""
    best = winner_row(summary)
    if best is None:
        return ""
    if best["activation"] == "identity":
        return "The lowest score belongs to identity, a network without any activation: a linear model."
    found = compared(summary).get("identity") or {}
    if found.get("verdict") != "as good" or not is_number(cost := found.get("cost_at_most")):
        return ""
    return (
        f"A network without any activation (identity) costs at most {at_most(cost)}: a linear model does as well here."
    )


def how_to_go_on(summary: Mapping[str, Any]) -> str:
    """How a race ended that left something unsettled, and what takes it to the look that its estimates ask for."""
    protocol, found = summary.get("protocol") or {}, compared(summary)
    unsettled = [one for one in found.values() if one["verdict"] == "not settled"]
    if not unsettled or protocol.get("protocol") != "race":
        return ""
    done, trained = int(protocol.get("repeats_done") or 0), int(protocol.get("n_networks") or 0)
    if _is_spent(summary):
        return f"After {done} repeats no error is left to spend on another look: what is not settled stays so."
    needed = [int(one["repeats_needed"]) for one in unsettled if is_number(one.get("repeats_needed"))]
    goal = done + max(needed) if needed else next(look for look in LOOKS if look > done)
    n_in = 1 + sum(one["verdict"] in ("as good", "not settled") for one in found.values())
    budget = trained + n_in * (goal - done) * int(protocol.get("folds") or 1) * int(protocol.get("inner") or 1)
    option = f"--compare.budget {budget}"
    if protocol.get("ending") == "repeats":
        option = f"--compare.repeats {goal} {option}"
    return (
        f"The run ended after {done} repeats and {trained:,} networks: the same command with {option} goes on to "
        f"repeat {goal} in the same directory."
    )


def budget_sentence(terms: Terms, n_settings: int, n_folds: int) -> str:
    """Which difference a race can show with its budget, and with the networks of its last look; empty where none."""
    known, now, last = detectable(terms, n_settings, n_folds), look_reached(terms, n_settings), terms.looks[-1:]
    if known is None or now is None:
        return ""
    if terms.budget > MOST_NETWORKS:
        return f"with {now[0]} repeats: about {percent(known)} of the score on these rows"
    said = f"with {terms.budget} networks after the sweep: about {percent(known)} of the score on these rows"
    more = replace(terms, budget=last[0][0] * terms.n_folds * n_settings)
    if last[0] == now:
        return said
    return f"{said}; --compare.budget {more.budget}: about {percent(detectable(more, n_settings, n_folds))}"


def title(run: FinishedRun) -> str:
    kinds = {"compare": "Activation functions compared", "search": "Activation functions searched"}
    target = (run.part("data") or run.config.get("data") or {}).get("target")
    return f"{kinds.get(run.command, 'Networks of one activation function')}: {target or run.directory.path.name}"


def fit_answer(run: FinishedRun) -> str:
    """What a `fit` can say: there is nothing to compare with."""
    ensemble = run.part("ensemble").get("test_score")
    averaged = f" Averaged, they score {fixed(ensemble, 4)} on the test rows." if ensemble is not None else ""
    return (
        f"{len(run.members)} networks with {run.order[0]} at learning rate "
        f"{three_digits(float(run.members.learning_rate.iloc[0]))} have a mean validation {run.target.metric_name} of "
        f"{fixed(float(run.members.val_score.mean()), 4)}; one activation was trained, so nothing is "
        f"compared.{averaged}"
    )


# Of each figure: what it shows and how to read it; and its message for those who do not see it.
FIGURE_TEXTS = {
    "ranking": (
        "Mean score of each activation on test rows; small dots are its repeats.{apart} Hollow: the shipped networks "
        "averaged, and models without a network.",
        "Dot plot of mean test scores, best first: {names}. The table below has the numbers.",
    ),
    "learning_rates": (
        "Mean validation score of every activation at every learning rate that was tried{sweep}; dark is good, yellow "
        "is at or beyond the end of the scale. Framed: the rate that the comparison is about.{stopped}{added}",
        "Heat map of validation scores by activation and learning rate. Chosen: {favourites}.",
    ),
    "learning rates of trials": (
        "Validation score of every trial; dark is good. Rings mark the trials that are ranked; crosses have no score: "
        "stopped early or diverged.",
        "Scatter plot of validation scores by activation and learning rate. Chosen: {favourites}.",
    ),
    "what_matters": (
        "If one network of this run were drawn at random, with one of its activations, a learning rate within a factor "
        "of 3 of the best and any partition and seed: how much of the variance of its log score each of them makes. "
        "Lines are 95 % bootstrap intervals. {matters}",
        "Bar chart of shares of the score's variation: {shares}.",
    ),
    "importances": (
        "Which parameter mattered: the share of the variance of the trials' validation scores that each one explains, "
        "by Optuna.",
        "Bar chart of the parameters' importance. {importances}.",
    ),
    "slices": (
        "Validation score of every trial that has one, by each parameter that was searched; the worst are beyond the "
        "upper end. Where the lowest marks gather is what the search found good.",
        "Scatter plots of validation score against each parameter that was searched. The table has the best.",
    ),
    "differences": (
        "How much worse each activation scores than {winner}, in percent of its score, on the same folds; the lines "
        "are 95 % intervals that hold all together, each for the question that its word answers. Shaded: {band}, too "
        "little to matter. Hollow: not settled. At most: what choosing it can cost against the best of all.{than}",
        "Forest plot of differences from {winner}: {verdicts}. The table below has the numbers.",
    ),
    "curves": (
        "Mean score per epoch over the networks of each activation{favoured}; the band is one standard deviation. "
        "Solid: validation. Dashed: training (with dropout, where there is any). Grey: validation of the first panel. "
        "Both axes are logarithmic; a curve ends where half of its networks have stopped.",
        "Training and validation score per epoch, one panel each for {names}.",
    ),
    "health": (
        "Each hidden layer on the inner-validation rows, averaged over the chosen networks. Dead: units that pass no "
        "gradient on any row. Saturated: derivative under 5 % of its maximum. Mean output: zero is centred. Gradient "
        "ratio: gradient at this layer over that at the last hidden layer, before training; far below 1 it vanishes. "
        "Darker is less healthy.",
        "Table of dead and saturated units, mean outputs and gradient ratios per hidden layer for {names}.",
    ),
    "predictions": (
        "Each row predicted by networks that never saw it{shipped}. Left: actual against predicted, with the line of "
        "perfect predictions. Right: what is left over. Numbers point to the table of worst rows. Where the target's "
        "logarithm is learned, a prediction is about its median.",
        "Scatter plots of actual against predicted values and of residuals against predicted values.",
    ),
}


def figure_texts(name: str, run: FinishedRun) -> tuple[str, str]:
    """A figure's caption, and its alternative."""
    shipped, found = run.part("ensemble").get("activations") or {}, compared(run.summary)
    facts = {
        "names": listed(run.order, 30),
        "apart": " Folds are hard or easy for all alike, so dots of two activations overlap where every repeat agrees: "
        "the differences above tell them apart. One that left early is placed by its difference on the repeats it has."
        if found
        else "",
        "favourites": ", ".join(
            f"{row['activation']} at {three_digits(row['learning_rate'])}" for row in run.ranking_rows
        ),
        "importances": ", ".join(f"{key} {share:.0%}" for key, share in run.part("importances").items()),
        "matters": sentence(run.summary.get("what_matters")),
        "shares": ", ".join(
            f"{row['source']} {100 * row['share']:.0f} %" for row in run.summary.get("what_matters") or []
        ),
        "winner": run.summary.get("winner"),
        "band": f"within {percent(run.part('protocol').get('rope'))}",
        "verdicts": ", ".join(f"{name} {one['verdict']}" for name, one in found.items()),
        "than": " Than: another activation that it is shown to be worse than, though not than the best."
        if any(one.get("shown_against") for one in found.values())
        else "",
        "sweep": " in the sweep" if run.part("protocol").get("protocol") == "race" else "",
        "stopped": " Grey: training was stopped early." if run.members.pruned.any() else "",
        "added": " A + marks rates beyond those asked for." if added_rates(run) else "",
        "favoured": " at its learning rate" if run.is_ranked else "",
        "shipped": f" (the model: {listed([f'{n} of {key}' for key, n in shipped.items()], 6)})" if shipped else "",
    }
    is_of_trials = name == "learning_rates" and not run.is_grid
    caption, alternative = FIGURE_TEXTS["learning rates of trials" if is_of_trials else name]
    return caption.format(**facts), alternative.format(**facts)


def added_rates(run: FinishedRun) -> set[float]:
    """Learning rates that a sweep tried beyond those asked for, as far as the stored configuration says which."""
    asked = (run.config.get("compare") or {}).get("learning_rates")
    return set(run.members.learning_rate.unique()) - set(map(float, asked)) if asked and run.is_grid else set()


def protocol(run: FinishedRun) -> list[str]:
    """What was held equal for all, and what was done when, as sentences; only what the summary says."""
    if not run.is_ranked:
        return ["One split of the rows; the test fold was looked at once, after training."]
    p, is_search, lines = run.part("protocol"), run.command == "search", []
    if p.get("protocol") == "race":
        lines += _race_sentences(p)
    elif is_search:
        lines.append(
            "The search gives activations unequal numbers of trials, so it ranks them and tests nothing: only a "
            "comparison can say that one is better."
        )
    else:
        lines.append(
            f"Every learning rate was trained on {p.get('folds')} folds in every repeat, with {p.get('inner')} inner "
            "validation parts; that of an activation is the one with the lowest mean validation score."
        )
    lines += [
        f"{len(run.members):,} networks in all. A score is the root over all rows of a repeat, each row predicted by a "
        "network that never saw it, and its mean over the repeats.",
        "All activations share splits, initial seeds and batch orders, so their differences are paired.",
    ]
    if "hidden" in p:
        is_searched = is_search and (run.config.get("search") or {}).get("hidden")
        layers = "were searched" if is_searched else " - ".join(map(str, p["hidden"]))
        lines.append(
            f"Hidden layers {layers}; at most {p.get('max_epochs')} epochs, stopped after "
            f"{p.get('patience')} without a better validation score; seed {p.get('seed')}."
        )
    return lines


IN_TIME = (
    "Rows are split by their time: a fold trains on all rows before its test rows, of which the last part validates; "
    "the sweep trains and validates before the first test row. Repeats differ in their seeds.",
)


def _race_sentences(p: Mapping[str, Any]) -> list[str]:
    looks = p.get("looks") or []
    left = [f"{listed(look['left'], 30)} after {look['n_repeats']}" for look in looks if look.get("left")]
    return [
        "A sweep found the learning rate of each activation by inner validation; its test scores count for nothing. "
        f"Then fresh repeats of {p.get('folds')} folds, one network a fold, were trained of all that were still in.",
        *(IN_TIME if p.get("unit") == "stretches of time" else ()),
        f"Looks after {listed([str(look['n_repeats']) for look in looks], 30)} repeats, with an error of "
        f"{listed([percent(look['alpha']) for look in looks], 30)} for each of two questions. "
        f"Shown to be worse here and left: {'; '.join(left) or 'nobody'}.",
    ]


def repeat_command(run: RunDirectory, command: str) -> str:
    """The command that makes the same numbers again, in a directory of its own."""
    again = run.path.with_name(f"{run.path.name}-again")
    return shlex.join(["actlab", command, "--config", str(run.config), "--out", str(again)])


def data_facts(run: FinishedRun) -> list[tuple[str, str]]:
    stored = run.config.get("data") or {}
    data = run.part("data") or {key: stored[key] for key in stored if key in ("csv", "target", "id")}
    names = {"csv": "file", "n_rows": "rows", "n_columns": "columns", "sha256": "SHA-256"}
    return [(names.get(key, key), str(value)) for key, value in data.items() if value is not None]


def missing(run: FinishedRun) -> str:
    """What this run has no data for, so that an absent section is not taken for an oversight."""
    absent = {
        "the health of the layers": run.health is None,
        "predictions of single rows": run.predictions is None,
        "claims": run.is_ranked and not run.summary.get("claims"),
    }
    named = [what for what, is_absent in absent.items() if is_absent]
    return f"This run did not record {listed(named)}." if named else ""
