"""The one kind of failure that is the user's to repair."""


class InputError(ValueError):
    """Bad input or usage: one sentence with the rule, the value and the repair.

    The command line prints it to stderr without a traceback and exits with code 2.
    """
