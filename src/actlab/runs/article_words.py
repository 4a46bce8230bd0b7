"""What the teaching experiment's figures are worth, in words, each with a number of the run."""

from collections.abc import Sequence

import torch

from actlab.networks.metrics import log_rmse
from actlab.runs.article_networks import LEARNING_RATE, N_EPOCHS, TITLES, ArticleData, ArticleResult, losses


def render(results: Sequence[ArticleResult], data: ArticleData) -> str:
    """Failures and last test losses of each activation, then why they say little about activations."""
    lines = ["", f"{'activation':<12}{'failed seeds':>14}{'last test loss':>20}{'last outputs':>24}"]
    for activation, title in TITLES.items():
        own = [result for result in results if result.activation == activation]
        good = [result for result in own if result.failure is None]
        last = _span([result.test_losses[-1] for result in good], ".3f")
        outputs = _span([end for result in good for end in result.output_range])
        failed = f"{len(own) - len(good)} of {len(own)}"
        lines.append(f"{title:<12}{failed:>14}{last:>20}{outputs:>24}")
    return "\n".join([*lines, "", "Why these figures mislead:", *_caveats(results, data)])


def _caveats(results: Sequence[ArticleResult], data: ArticleData) -> list[str]:
    """The experiment's weaknesses, each with a number of this run."""
    y_train, y_test = torch.cat([y for _, y in data.batches]), data.test_targets
    bound = log_rmse(y_test.clamp(max=1), y_test).item()
    of_median = log_rmse(y_train.quantile(0.5).expand_as(y_test), y_test).item()
    good = [result for result in results if result.failure is None]
    best = f"the best network here has {min(r.test_losses[-1] for r in good):.3f}" if good else "no network has one"
    return [
        f"- The activation stands on the output too: sigmoid and tanh predict at most 1 where the targets are "
        f"{_span(y_test.tolist())}, so their test loss cannot be under {bound:.3f}, whatever they learn.",
        f"- The median of the training targets, no network at all, has a test loss of {of_median:.3f}; {best}.",
        f"- {_failures(results)}",
        f"- Scaled before splitting: {data.n_leaking_columns} of {data.test_features.shape[1]} columns were scaled by "
        "a minimum or maximum that occurs in test rows only.",
        f"- One learning rate, {LEARNING_RATE}, and {N_EPOCHS * len(data.batches)} steps for all: {_speed(good)}.",
        f"- {_repeats(good, len({result.seed for result in results}))}. `actlab compare` pairs, repeats, tunes the "
        "learning rate of each and tests the difference.",
    ]


def _failures(results: Sequence[ArticleResult]) -> str:
    reasons = [result.failure for result in results if result.failure]
    if not reasons:
        return "No network failed, which is this seed's luck: only sigmoid never gives 0 or less (`--seeds 10` counts)."
    n_at_once = sum(reason.startswith("epoch 1, batch 1:") for reason in reasons)
    return (
        f"{len(reasons)} of {len(results)} networks failed, {n_at_once} of them in the very first batch: by the luck "
        "of their initial weights, before anything was learned."
    )


def _speed(good: Sequence[ArticleResult]) -> str:
    """How far from its end the fastest-falling network was stopped."""
    if not good:
        return "too few for any"
    drops = [(r.test_losses[-2] - r.test_losses[-1], r.test_losses[-1], TITLES[r.activation]) for r in good]
    drop, last, title = max(drops)
    return f"the test loss of {title} was stopped at {last:.3f} while it fell by {drop:.3f} an epoch"


def _repeats(good: Sequence[ArticleResult], n_seeds: int) -> str:
    if n_seeds == 1:
        return "One run for each activation: nothing tells a difference from luck"
    spreads = {}
    for activation, title in TITLES.items():
        ends = [r.test_losses[-1] for r in good if r.activation == activation]
        spreads[title] = max(ends) - min(ends) if ends else 0.0
    title = max(spreads, key=lambda name: spreads[name])
    return f"One split, and the seed alone moves the last test loss of {title} by up to {spreads[title]:.3f}"


def _span(values: Sequence[float], spec: str = "") -> str:
    """Smallest to largest value; "-" without any."""
    if not values:
        return "-"
    spec = spec or (",.0f" if max(values) >= 100 else ".4g")
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low} to {high}"


def one_line(result: ArticleResult) -> str:
    """A network without its epochs: last losses, and why it failed if it did."""
    ends = losses(result.train_losses[-1], result.test_losses[-1])
    reason = f". Failed at {result.failure}" if result.failure else ""
    return f"{TITLES[result.activation]}, seed {result.seed}: {ends}{reason}"
