"""Which members train as one stack: at the start, and when some of them have left."""

from collections.abc import Sequence
from itertools import pairwise

from actlab.data.datamodule import SplitData, batch_shape
from actlab.members import Member, Split
from actlab.networks import activations
from actlab.networks.initialisation import layer_shapes
from actlab.networks.population import StackTraining

# Weights, gradients and two moments of a stack. Whoever trains a few members at a time has no need of small stacks;
# larger ones are copied whole whenever a member leaves them, and leave less to share out among threads.
STACK_BYTES = 32_000_000
# members of a stack under which its cost is that of calling the kernels
SMALL = 8
# stacks that every thread has at least, if they are not small: the last of an epoch makes up for unequal ones before
STACKS_A_THREAD = 2
# a thread's equal share of the members, as many times as which one stack may have of them
MOST_OF_A_SHARE = 1.5


def plan_stacks(
    members: Sequence[Member],
    data: dict[Split, SplitData],
    batch_size: int,
    n_threads: int = 1,
    stack_bytes: int | None = None,
) -> list[list[int]]:
    """Positions of the members of each stack.

    Members of a stack are equal in activation, widths, dropout and number of steps, and lie in the order of learning
    rate; a stack is cut where its training state would outgrow `stack_bytes`, or to give every thread enough.
    """
    groups: dict[object, list[int]] = {}
    for position, member in enumerate(members):
        rows = data[member.split].rows
        shape = (batch_shape(len(rows.training), batch_size), len(rows.validation))
        key = (member.activation, member.hidden, member.dropout, shape)
        groups.setdefault(key, []).append(position)
    stacks = []
    enough = STACKS_A_THREAD if len(members) >= STACKS_A_THREAD * n_threads * SMALL else 1
    n_stacks_wanted = -(-enough * n_threads // len(groups)) if n_threads > 1 else 1
    for positions in groups.values():
        positions.sort(key=lambda p: _order(members[p]))
        size = -(-len(positions) // n_stacks_wanted)
        if stack_bytes is not None:
            size = min(size, max(1, stack_bytes // _training_bytes(members[positions[0]], data)))
        # equal cuts rather than full ones and a rest
        n_cuts = -(-len(positions) // size)
        bounds = [len(positions) * cut // n_cuts for cut in range(n_cuts + 1)]
        stacks += [positions[start:stop] for start, stop in pairwise(bounds)]
    return stacks


def _order(member: Member) -> tuple[object, ...]:
    """Members of equal optimiser settings lie side by side."""
    return (member.learning_rate, member.weight_decay, member.epochs, member.stream)


def _training_bytes(member: Member, data: dict[Split, SplitData]) -> int:
    """Bytes of weights, gradients and AdamW's two moments of one member in float32."""
    k = activations.get(member.activation).width_factor
    shapes = layer_shapes(data[member.split].n_features, member.hidden, k)
    return 16 * sum(n_out * (n_in + 1) for n_out, n_in in shapes)


def balanced(stacks: Sequence[StackTraining], n_threads: int) -> list[StackTraining]:
    """The same members in as many stacks as keep all threads at work, the largest first.

    A stack of few members costs nearly as much as a full one, and at the end of a run most are of few members: small
    ones of one kind go together, while every thread still has two. The last one left is shared out again.
    """
    left: list[StackTraining] = []
    n_stacks = len(stacks)
    for training in sorted(stacks, key=lambda training: training.n_members):
        into = next((t for t in left if t.n_members + training.n_members <= SMALL and t.can_absorb(training)), None)
        if into is None or n_stacks <= STACKS_A_THREAD * n_threads:
            left.append(training)
        else:
            into.absorb(training)
            n_stacks -= 1
    n_members = sum(training.n_members for training in left)
    while left and n_threads > 1:
        largest = max(left, key=lambda training: training.n_members)
        if largest.n_members < 2 or largest.n_members <= MOST_OF_A_SHARE * n_members / n_threads:
            break
        left.append(largest.halve())
    return sorted(left, key=lambda training: -training.n_members)
