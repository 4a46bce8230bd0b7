"""A comparison on several data sets: its files, and what it says in words and on the terminal. No torch."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actlab.errors import InputError
from actlab.printed_tables import PrintedTable, TableColumn, number_cell, print_with_sentences, text_column
from actlab.report.words import decimals_for, fixed, listed, p_value
from actlab.run_files import RunDirectory

# Below so many the chi-squared approximation is poor (Demsar 2006), and few differences can be shown at all.
MANY = 10
# data sets that the terminal's table has columns for
N_SHOWN = 5
# behind a score: what the activation is against the best of that data set
MARKS = {
    "worse": ("**", "worse than the best there for new rows of that kind"),
    "worse here": ("*", "worse than the best there on these rows"),
}
# which of the three kinds of luck is spoken of
LUCK = (
    "Ranks across data sets answer for the luck of the data set, whether the order would hold on other tables; the "
    "luck of training and that of the rows are answered for by each data set's own verdicts."
)


def listed_runs(path: str | Path) -> list[str] | None:
    """The data sets of a comparison on several, from its config.yaml; None where the directory is something else."""
    try:
        data = RunDirectory(path).read_config().get("data")
    except InputError:
        return None
    return [Path(str(entry)).parent.name for entry in data] if isinstance(data, list) else None


def is_several(path: str | Path) -> bool:
    """Whether a directory holds a comparison on several data sets, finished or not."""
    return listed_runs(path) is not None


def refuse_several(path: str | Path) -> None:
    """Raise an `InputError` where the results of one data set are asked for, and a directory holds several."""
    if names := listed_runs(path):
        raise InputError(
            f"{path} holds a comparison on {len(names)} data sets; name one of its runs: {Path(path) / names[0]}"
        )


def read_several(path: str | Path) -> tuple[RunDirectory, dict[str, Any]]:
    """The directory of a finished comparison on several data sets, and its summary; each data set's run lies in it.

    Raises:
        InputError: it holds something else, or the comparison is not finished.
    """
    run = RunDirectory(path)
    if not is_several(path):
        raise InputError(f"{run.path} does not hold a comparison on several data sets")
    if not run.summary.exists():
        raise InputError(f"the comparison in {run.path} is not finished: start its command again and it goes on")
    summary = run.read_summary()
    if "data_sets" not in summary:
        raise InputError(f"{run.summary} is not the summary of a comparison on several data sets")
    return run, summary


def answer(summary: Mapping[str, Any]) -> str:
    """One sentence across data sets, which claims no more than their number can show."""
    order, test = summary["activations"], summary["friedman"]
    n_data_sets, best = len(summary["data_sets"]), order[0]
    tied = [name for name in order if summary["mean_ranks"][name] == summary["mean_ranks"][best]]
    lead = (
        f"Over {n_data_sets} data sets {listed(tied)} {'has' if len(tied) == 1 else 'share'} the best mean rank "
        f"({mean_rank(summary, best)} of {len(order)})"
    )
    if not summary["can_show_difference"]:
        return (
            f"{lead}, but {n_data_sets} data sets cannot tell any two activations apart: mean ranks would have to lie "
            f"{fixed(summary['critical_difference'], 2)} apart and can lie {len(order) - 1} apart at most."
        )
    if not is_significant(summary):
        return f"{lead}, but no difference between activations is shown (Friedman test, {_permuted(test)})."
    # in no group with the best
    apart = set(order).difference(*(group for group in summary["not_distinguished"] if best in group))
    worse = [name for name in order if name in apart and name not in tied]
    if not worse:
        return (
            f"{lead}; ranks differ more than by chance (Friedman test, {_permuted(test)}), but none is shown to rank "
            f"behind {best}."
        )
    rest = len(order) - 1 - len(worse)
    unshown = f"; no difference from the other {rest} is shown" if rest else ""
    return f"{lead}; {listed(worse, 6)} {'ranks' if len(worse) == 1 else 'rank'} behind it{unshown}."


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Sentences that belong beside the answer: which luck it is about, the tests, how few data sets there are, and who
    wins on each."""
    test = summary["friedman"]
    n_data_sets, apart = test["n_data_sets"], fixed(summary["critical_difference"], 2)
    found = [
        LUCK,
        "Friedman test of whether the data sets agree on ranks at all: chi-squared "
        f"{fixed(test['chi_squared'], 2)} on {test['df']} degrees of freedom, "
        f"{_permuted(test)} by permutation (chi-squared approximation: {test['p']:.2g}); critical difference of two "
        f"mean ranks (Nemenyi, 5 % over all pairs): {apart}.",
    ]
    if summary["can_show_difference"] and n_data_sets < MANY:
        found.append(
            f"{n_data_sets} data sets are few: only activations whose mean ranks, of {len(summary['activations'])} at "
            f"most, lie more than {apart} apart can be told apart, and what was not listed may rank them otherwise."
        )
    elif not summary["can_show_difference"]:
        found.append(
            f"What {n_data_sets} data sets can tell is in their own verdicts; a verdict across data sets needs at "
            f"least 3, better {MANY}."
        )
    # who wins where; on many data sets, how often
    entries = summary["data_sets"]
    winners = [f"{entry['winner']} on {entry['name']}" for entry in entries]
    if len(entries) > N_SHOWN:
        counts = Counter(str(entry["winner"]) for entry in entries).most_common()
        winners = [f"{winner} {count} times" if count > 1 else f"{winner} once" for winner, count in counts]
    return [*found, f"Lowest score: {listed(winners, N_SHOWN)}."]


def is_significant(summary: Mapping[str, Any]) -> bool:
    """Whether the permutation test shows that ranks differ; only then are pairs looked at."""
    return bool(summary["friedman"]["p_permutation"] <= summary["friedman"]["alpha"])


def _permuted(test: Mapping[str, Any]) -> str:
    """The p-value of the permutation test, which holds for any number of data sets."""
    # of 9,999 random orders and the observed one at least one, the observed one, is as extreme
    return p_value(test["p_permutation"], bound="≤")


def mean_rank(summary: Mapping[str, Any], name: str) -> str:
    """With the decimals that a mean over so many data sets has."""
    return f"{summary['mean_ranks'][name]:.2f}".removesuffix("0").removesuffix(".0")


def score_and_rank(summary: Mapping[str, Any], data_set: str, name: str) -> str:
    """`0.1244 (1)`, with the mark of the data set's own verdict where that says worse."""
    scores, rank = summary["scores"][data_set], summary["ranks"][data_set][name]
    decimals = decimals_for(min((score for score in scores.values() if score is not None), default=1.0))
    mark, _ = MARKS.get(summary["verdicts"].get(data_set, {}).get(name), ("", ""))
    return f"{fixed(scores[name], decimals)} ({rank:g}){mark}"


def marks_note(summary: Mapping[str, Any]) -> str:
    """What the marks mean that occur; empty where none does."""
    said = {verdict for verdicts in summary["verdicts"].values() for verdict in verdicts.values()}
    return ", ".join(f"{mark} {meaning}" for verdict, (mark, meaning) in MARKS.items() if verdict in said)


def ranks_table(summary: Mapping[str, Any], n_shown: int | None = None, note: str = "") -> PrintedTable:
    """Activations by mean rank, with score and rank on the first `n_shown` data sets, or on all."""
    names = [str(entry["name"]) for entry in summary["data_sets"]][:n_shown]
    columns = (
        text_column("activation", width=24),
        TableColumn("mean rank"),
        *(TableColumn(name, can_fold=True, width=20) for name in names),
    )
    rows = []
    for activation in summary["activations"]:
        # sorted by rank, which is there for those without a score too
        ranks = ((summary["ranks"][name][activation], score_and_rank(summary, name, activation)) for name in names)
        mean = number_cell(summary["mean_ranks"][activation], mean_rank(summary, activation))
        rows.append((activation, mean, *(number_cell(*found) for found in ranks)))
    best = min(summary["mean_ranks"].values())
    bold = [place for place, name in enumerate(summary["activations"]) if summary["mean_ranks"][name] == best]
    return PrintedTable.of(columns, rows, name="ranks-table", note=note, bold=bold)


def print_several(summary: Mapping[str, Any]) -> None:
    """Ranks, the answer across data sets with what belongs beside it, and each data set's own answer, to stdout."""
    notes, sentences = ["score (rank)"], remarks(summary)
    if meanings := marks_note(summary):
        notes.append(meanings)
    if (n_left := len(summary["data_sets"]) - N_SHOWN) > 0:
        notes.append(f"the other {n_left} data sets are in ranks.csv")
        sentences.append("Each data set has its own answer in report.html and in its own directory.")
    else:
        sentences += [f"{entry['name']}: {entry['answer']}" for entry in summary["data_sets"]]
    print_with_sentences(ranks_table(summary, N_SHOWN, "; ".join(notes)), answer(summary), sentences)
