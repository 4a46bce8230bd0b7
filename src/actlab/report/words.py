"""What is said of a run: numbers as they are read, the answer, what belongs beside it, and a report's sentences.

Works on the keys of summary.json as `json` reads them: a number that was not finite is None.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from actlab.data.target import Target
from actlab.printed_tables import is_number
from actlab.report.finished import FinishedRun
from actlab.run_files import RunDirectory
from actlab.settings import ALPHA
from actlab.verdict.summary import comparison_with_winner, winner_row

# from here on a lead that is not shown is the test's lack of folds rather than a want of non-linearity
MUCH_WORSE = 0.2
# p-values are not told apart below
SMALLEST_P = 1e-4


def decimals_for(value: float) -> int:
    """Decimals that show four significant digits of `value`: 4 for 0.1271, 1 for 123.4, 0 for 35000."""
    if not is_number(value) or value == 0:
        return 4
    return min(12, max(0, 3 - math.floor(math.log10(abs(value)))))


def fixed(value: float | None, decimals: int) -> str:
    """A score with so many decimals and separated thousands; a dash where there is none."""
    return f"{value:,.{decimals}f}" if is_number(value) else "-"


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


def score_decimals(summary: Mapping[str, Any]) -> int:
    """Decimals of a run's scores: those of the winner's."""
    return decimals_for((winner_row(summary) or {"mean": 0.1})["mean"])


def answer(summary: Mapping[str, Any]) -> str:
    """One sentence: which activation at which learning rate, how sure that is, and how the others compare.

    Says `difference` only of comparisons that the summary holds; a ranking without comparisons (a search gives its
    activations unequal budgets) is called an order and no more.
    """
    best = winner_row(summary)
    if best is None:
        trained = sum(row.get("n") or 0 for row in summary["ranking"])
        return f"No activation can be recommended on this data: none of the {trained} networks gave a usable score."
    decimals = decimals_for(best["mean"])
    certainty = fixed(best["mean"], decimals)
    if is_number(best.get("ci_low")):
        certainty += f", 95 % interval {fixed(best['ci_low'], decimals)} to {fixed(best['ci_high'], decimals)}"
    setting = f"{best['activation']} at learning rate {three_digits(best['learning_rate'])}"
    metric = Target.of_metric(summary["metric"]).metric_name
    others = [row["activation"] for row in summary["ranking"] if row["activation"] != best["activation"]]
    if not others:
        return f"On this data {setting} has a mean {metric} of {certainty}; nothing was compared with it."
    return (
        f"On this data {setting} has the lowest {metric} ({certainty}){_standing(summary, best['activation'], others)}."
    )


def _standing(summary: Mapping[str, Any], winner: str, others: Sequence[str]) -> str:
    """How the other activations compare with the winner, as the end of a sentence."""
    verdicts = {name: comparison_with_winner(summary, name) for name in others}
    if not any(verdicts.values()):
        return f", ahead of {listed(others)} in an order that no test stands behind"
    unshown, worse, better = (
        [name for name in others if (verdicts[name] or {}).get("verdict") == verdict]
        for verdict in ("no difference shown", "worse", "better")
    )
    if len(unshown) == len(others):
        whom = f"any of the other {len(others)} activations" if len(others) > 1 else unshown[0]
        return f", but no difference from {whom} is shown"
    parts = [(unshown, "shows no difference from it", "show no difference from it")]
    parts += [(worse, "is worse", "are worse"), (better, "is better in the test", "are better in the test")]
    clauses = [f"{listed(names)} {one if len(names) == 1 else many}" for names, one, many in parts if names]
    return f"; {'; '.join(clauses)}"


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Sentences that belong beside the answer: what averaging gives, the references, whether a network without any
    activation does as well, which verdicts hang on the choice of the winner, edges of the range, and divergence."""
    found = [_scores_beside(summary), _linear(summary), _choice(summary)]
    if at_edge := [row["activation"] for row in summary["ranking"] if row.get("edge_of_range")]:
        rates = "its best learning rate lies" if len(at_edge) == 1 else "their best learning rates lie"
        found.append(f"{listed(at_edge)}: {rates} at the edge of the range tried, so a wider range may do better.")
    diverged = {row["activation"]: row["diverged"] for row in summary["ranking"] if row.get("diverged")}
    if total := sum(diverged.values()):
        counts = listed([f"{name} {count}" for name, count in diverged.items()], 6)
        found.append(f"{total} network{'s' if total > 1 else ''} diverged: {counts}.")
    return [sentence for sentence in found if sentence]


def _scores_beside(summary: Mapping[str, Any]) -> str:
    best = winner_row(summary)
    references = summary.get("references") or {}
    named = {
        "the shipped networks averaged": (summary.get("ensemble") or {}).get("test_score"),
        "ridge": references.get("ridge"),
        "gradient boosting": references.get("hist_gradient_boosting"),
        "the median": references.get("median"),
    }
    decimals = decimals_for(best["mean"] if best else named["the median"] or 1.0)
    known = [f"{name} {fixed(score, decimals)}" for name, score in named.items() if is_number(score)]
    return f"On the same test rows: {', '.join(known)}." if known else ""


def _linear(summary: Mapping[str, Any]) -> str:
    best = winner_row(summary)
    if best is None:
        return ""
    if best["activation"] == "identity":
        return "The lowest score belongs to identity, a network without any activation: a linear model."
    comparison = comparison_with_winner(summary, "identity")
    if comparison is None or comparison["verdict"] != "no difference shown":
        return ""
    share = comparison["difference"] / best["mean"] if is_number(comparison.get("difference")) else 0.0
    if share > MUCH_WORSE:
        return (
            f"A network without any activation (identity) scores {share:.0%} worse in these folds, but the test, "
            "adjusted for all comparisons, has too few folds to show it: compare.repeats 3 gives it more."
        )
    return "A network without any activation (identity) is not shown to be worse: what is non-linear here is little."


def _choice(summary: Mapping[str, Any]) -> str:
    """What is shown against the winner as such, but no longer once the tests pay for picking it by these scores."""
    found = {row["activation"]: comparison_with_winner(summary, row["activation"]) or {} for row in summary["ranking"]}
    shown = {name: own.get("p_all_pairs") or 0.0 for name, own in found.items() if own.get("verdict") == "worse"}
    weak = [name for name, p in shown.items() if p >= ALPHA]
    if not weak or summary.get("confirmation"):
        return ""
    return (
        f"The winner was picked by these very scores; adjusted for that, over all pairs, the difference from "
        f"{listed(weak)} is not shown: --confirm tests it on fresh seeds and folds."
    )


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
        "Mean test score of each activation over {n_pairs} test folds, with its 95 % interval (widened because folds "
        "share training rows). Intervals that overlap may still hide a difference: activations are compared pair by "
        "pair below. Hollow: the shipped networks averaged, and models without a network.",
        "Forest plot of test scores with intervals, best first: {names}. The table below has the numbers.",
    ),
    "learning_rates": (
        "Mean inner-validation score of every activation at every learning rate; dark is good, yellow is at or beyond "
        "the end of the scale. A number in a box counts the test folds in which validation chose this rate.",
        "Heat map of validation scores by activation and learning rate. Chosen most often: {favourites}.",
    ),
    "learning rates of trials": (
        "Inner-validation score of every trial; dark is good. Rings mark trials that validation chose for a test fold; "
        "crosses have no score: stopped early or diverged.",
        "Heat map of validation scores by activation and learning rate. Chosen most often: {favourites}.",
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
        "Test score of each activation minus that of {winner} on the same folds, with 95 % intervals; right of zero is "
        "worse. The shaded band is a difference too small to matter{band}. Filled marks: the corrected test, adjusted "
        "for all comparisons with the winner, shows a difference.",
        "Forest plot of paired differences from {winner}. No difference is shown for {undecided}. The table below has "
        "the numbers.",
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
        "perfect predictions. Right: what is left over. Numbers point to the table of worst rows.",
        "Scatter plots of actual against predicted values and of residuals against predicted values.",
    ),
}


def figure_texts(name: str, run: FinishedRun) -> tuple[str, str]:
    """A figure's caption, and its alternative."""
    rope, shipped = run.summary.get("rope"), run.part("ensemble").get("activations") or {}
    facts = {
        "n_pairs": len(run.members.drop_duplicates(["repeat", "fold"])),
        "names": listed(run.order, 30),
        "favourites": ", ".join(
            f"{row['activation']} at {three_digits(row['learning_rate'])}" for row in run.ranking_rows
        ),
        "importances": ", ".join(f"{key} {share:.0%}" for key, share in run.part("importances").items()),
        "winner": run.summary.get("winner"),
        "band": f" (±{rope:.2g})" if rope else "",
        "undecided": listed(run.summary.get("indistinguishable_from_winner") or [], 30) or "none of them",
        "favoured": " at its favourite learning rate" if run.is_ranked else "",
        "shipped": f" (the model: {listed([f'{n} of {key}' for key, n in shipped.items()], 6)})" if shipped else "",
    }
    is_of_trials = name == "learning_rates" and not run.is_grid
    caption, alternative = FIGURE_TEXTS["learning rates of trials" if is_of_trials else name]
    return caption.format(**facts), alternative.format(**facts)


def protocol(run: FinishedRun) -> list[str]:
    """What was held equal for all, as sentences; only what the summary says."""
    if not run.is_ranked:
        return ["One split of the rows; the test fold was looked at once, after training."]
    p, is_search, lines = run.part("protocol"), run.command == "search", []
    if {"folds", "inner", "repeats"} <= p.keys():
        parts = {"n_training": "to train on", "n_validation": "to validate", "n_test": "to test"}
        counts = ", ".join(f"{p[key]:,} rows {what}" for key, what in parts.items() if p.get(key) is not None)
        lines.append(
            f"{p['repeats']} x {p['folds']} test folds, inner validation parts in each: {p['inner']}; "
            f"{len(run.members):,} networks, {counts or 'equal for all'}."
        )
    lines += [
        "All activations share splits, initial seeds and batch orders, so their differences are paired.",
        "The learning rate is chosen in each fold by inner validation; the test rows are scored once.",
        "The search gives activations unequal numbers of trials, so it ranks them and tests nothing: only a comparison "
        "can say that one is better."
        if is_search
        else "Every activation was given the same learning rates and the same number of networks.",
    ]
    if "hidden" in p:
        is_searched = is_search and (run.config.get("search") or {}).get("hidden")
        layers = "were searched" if is_searched else " - ".join(map(str, p["hidden"]))
        lines.append(
            f"Hidden layers {layers}; at most {p.get('max_epochs')} epochs, stopped after "
            f"{p.get('patience')} without a better validation score; seed {p.get('seed')}."
        )
    return lines


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
