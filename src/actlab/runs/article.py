"""`actlab article`: the teaching experiment run to the letter, its failing seeds counted, and why it misleads."""

from actlab.runs.article_networks import TITLES, ArticleResult, Echo, prepare, train
from actlab.runs.article_words import one_line, render
from actlab.settings import require


def article(
    csv: str,
    target: str,
    seed: int = 0,
    seeds: int | None = None,
    echo: Echo = print,
    *,
    id_column: str | None = "Id",
) -> list[ArticleResult]:
    """Run the experiment and print it as it goes: each epoch for `seed`, one line a network for the seeds after it.

    Args:
        csv: Path of the table.
        target: Its positive numeric column to predict.
        seed: First seed.
        seeds: How many seeds to run, `seed` included; one if None.
        echo: Takes each line.
        id_column: Left out of the features where the table has it.
    """
    n_seeds = 1 if seeds is None else seeds
    require(n_seeds >= 1, "seeds must be at least 1", seeds=n_seeds)
    require(0 <= seed <= 2**63 - n_seeds, "seed must be at least 0 and fit torch's 63 bits", seed=seed)
    data = prepare(csv, target, id_column=id_column)
    results = [train(data, activation, seed, echo) for activation in TITLES]
    for later in range(seed + 1, seed + n_seeds):
        for activation in TITLES:
            results.append(train(data, activation, later))
            echo(one_line(results[-1]))
    echo(render(results, data))
    return results


def run_article(csv: str, target: str, seed: int = 0, *, id_column: str | None = "Id") -> list[ArticleResult]:
    """The four networks of one seed, without a word."""
    data = prepare(csv, target, id_column=id_column)
    return [train(data, activation, seed) for activation in TITLES]
