"""The sentences of a report: captions and text alternatives of its figures, protocol, and how to repeat the run."""

import shlex
from typing import Any

from actlab.report.answer import fixed, listed, rate, winner_row
from actlab.report.finished import FinishedRun

SPLITS = "All activations share splits, initial seeds and batch orders, so their differences are paired."


def title(run: FinishedRun) -> str:
    data = run.summary.get("data") or run.config.get("data") or {}
    target = data.get("target")
    kinds = {"compare": "Activation functions compared", "search": "Activation functions searched"}
    kind = kinds.get(run.command, "Networks of one activation function")
    return f"{kind}: {target or run.directory.path.name}"


def fit_answer(run: FinishedRun) -> str:
    """What a `fit` can say: there is nothing to compare with."""
    scores = run.members.val_score.dropna()
    ensemble = (run.summary.get("ensemble") or {}).get("test_score")
    averaged = f" Averaged, they score {fixed(ensemble, 4)} on the test rows." if ensemble is not None else ""
    setting = f"{run.order[0]} at learning rate {rate(float(run.members.learning_rate.iloc[0]))}"
    return (
        f"{len(run.members)} networks with {setting} have a mean validation {run.unit.partition(' (')[0]} of "
        f"{fixed(float(scores.mean()) if len(scores) else None, 4)}; one activation was trained, so nothing is "
        f"compared.{averaged}"
    )


def caption(name: str, run: FinishedRun) -> str:
    """What a figure shows and how to read it."""
    rope = run.summary.get("rope")
    band = f" (±{rope:.2g})" if rope else ""
    pairs = len(run.members.drop_duplicates(["repeat", "fold"]))
    captions = {
        "ranking": (
            f"Mean test score of each activation over {pairs} test folds, with its 95 % interval (widened because "
            "folds share training rows). Intervals that overlap may still hide a difference: activations are "
            "compared pair by pair below. Hollow: the shipped networks averaged, and models without a network."
        ),
        "learning_rates": (
            "Mean inner-validation score of every activation at every learning rate; dark is good, yellow is at or "
            "beyond the end of the scale. A number in a box counts the test folds in which validation chose "
            "this rate."
            if run.is_grid
            else "Inner-validation score of every trial; dark is good. Rings mark trials that "
            "validation chose for a test fold; crosses have no score: stopped early or diverged."
        ),
        "importances": (
            "Which parameter mattered: the share of the variance of the trials' validation scores that each one "
            "explains, by Optuna."
        ),
        "slices": (
            "Validation score of every trial that has one, by each parameter that was searched; the worst are beyond "
            "the upper end. Where the lowest marks gather is what the search found good."
        ),
        "differences": (
            f"Test score of each activation minus that of {run.summary.get('winner')} on the same folds, with 95 % "
            f"intervals; right of zero is worse. The shaded band is a difference too small to matter{band}. Filled "
            "marks: the corrected test, adjusted for all comparisons with the winner, shows a difference."
        ),
        "curves": (
            "Mean score per epoch over the networks of each activation"
            f"{' at its favourite learning rate' if run.is_ranked else ''}; the band is one standard deviation. "
            "Solid: validation. Dashed: training (with dropout, where there is any). Grey: validation of the first "
            "panel. Both axes are logarithmic; a curve ends where half of its networks have stopped."
        ),
        "health": (
            "Each hidden layer on the inner-validation rows, averaged over the chosen networks. Dead: units that "
            "pass no gradient on any row. Saturated: derivative under 5 % of its maximum. Mean output: zero is "
            "centred. Gradient ratio: gradient at this layer over that at the last hidden layer, before training; "
            "far below 1 it vanishes. Darker is less healthy."
        ),
        "predictions": (
            f"Each row predicted by networks that never saw it{_shipped(run)}. Left: actual against predicted, with "
            "the line of perfect predictions. Right: what is left over. Numbers point to the table of worst rows."
        ),
    }
    return captions[name]


def _shipped(run: FinishedRun) -> str:
    """What the model that makes the predictions consists of, where the summary says so."""
    counts = (run.summary.get("ensemble") or {}).get("activations") or {}
    named = listed([f"{count} of {name}" for name, count in counts.items()], 6)
    return f" (the model: {named})" if named else ""


def alternative(name: str, run: FinishedRun) -> str:
    """The figure for those who do not see it: its message rather than its looks."""
    names = listed(run.order, 30)
    best = winner_row(run.summary) if run.is_ranked else None
    winner = str(best["activation"]) if best else "none"
    undecided = list(run.summary.get("indistinguishable_from_winner") or [])
    texts = {
        "ranking": f"Forest plot of test scores with intervals, best first: {names}. The table below has the numbers.",
        "learning_rates": f"Heat map of validation scores by activation and learning rate. {_favourites(run)}",
        "importances": f"Bar chart of the parameters' importance. {_importances(run)}",
        "slices": "Scatter plots of validation score against each parameter that was searched. The table has the best.",
        "differences": (
            f"Forest plot of paired differences from {winner}. No difference is shown for "
            f"{listed(undecided, 30) if undecided else 'none of them'}. The table below has the numbers."
        ),
        "curves": f"Training and validation score per epoch, one panel each for {names}.",
        "health": f"Table of dead and saturated units, mean outputs and gradient ratios per hidden layer for {names}.",
        "predictions": "Scatter plots of actual against predicted values and of residuals against predicted values.",
    }
    return texts[name]


def _favourites(run: FinishedRun) -> str:
    chosen = [f"{row['activation']} at {rate(row['learning_rate'])}" for row in run.ranking]
    return f"Chosen most often: {', '.join(chosen)}."


def _importances(run: FinishedRun) -> str:
    shares = run.summary.get("importances") or {}
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) + "."


def protocol(run: FinishedRun) -> list[str]:
    """What was held equal for all, as sentences; only what the summary says."""
    p: dict[str, Any] = run.summary.get("protocol") or {}
    if not run.is_ranked:
        return ["One split of the rows; the test fold was looked at once, after training."]
    lines = [SPLITS, "The learning rate is chosen in each fold by inner validation; the test rows are scored once."]
    if {"folds", "inner", "repeats"} <= p.keys():
        lines.insert(
            0,
            f"{p['repeats']} x {p['folds']} test folds, inner validation parts in each: {p['inner']}; "
            f"{len(run.members):,} networks, {_rows(p)}.",
        )
    if run.command == "compare":
        lines.append("Every activation was given the same learning rates and the same number of networks.")
    else:
        lines.append(
            "The search gives activations unequal numbers of trials, so it ranks them and tests nothing: only a "
            "comparison can say that one is better."
        )
    if "hidden" in p:
        widths = (run.config.get("search") or {}).get("hidden") if run.command == "search" else None
        layers = "were searched" if widths else " - ".join(map(str, p["hidden"]))
        lines.append(
            f"Hidden layers {layers}; at most {p.get('max_epochs')} epochs, stopped after "
            f"{p.get('patience')} without a better validation score; seed {p.get('seed')}."
        )
    return lines


def _rows(p: dict[str, Any]) -> str:
    parts = [(p.get("n_training"), "to train on"), (p.get("n_validation"), "to validate"), (p.get("n_test"), "to test")]
    return ", ".join(f"{n:,} rows {what}" for n, what in parts if n is not None) or "equal for all"


def command(run: FinishedRun) -> str:
    """The command that makes the same numbers again, in a directory of its own."""
    path = run.directory.path
    again = path.with_name(f"{path.name}-again")
    arguments = ["actlab", run.command, "--config", str(run.directory.config), "--out", str(again)]
    return shlex.join(arguments)


def data_facts(run: FinishedRun) -> list[tuple[str, str]]:
    data = run.summary.get("data") or {
        key: value for key, value in (run.config.get("data") or {}).items() if key in ("csv", "target", "id")
    }
    names = {"csv": "file", "target": "target", "n_rows": "rows", "n_columns": "columns", "sha256": "SHA-256"}
    return [(names.get(key, key), str(value)) for key, value in data.items() if value is not None]


def missing(run: FinishedRun) -> str:
    """What this run has no data for, so that an absent section is not taken for an oversight."""
    parts = [
        ("the health of the layers", run.health is None),
        ("predictions of single rows", run.predictions is None),
        ("claims", run.is_ranked and not run.summary.get("claims")),
    ]
    absent = [what for what, is_absent in parts if is_absent]
    return f"This run did not record {listed(absent)}." if absent else ""
