"""The one kind of failure that is the user's to repair, and of warning that `predict` gives from Python."""


class InputError(ValueError):
    """Bad input or usage: one sentence with the rule, the value and the repair.

    The command line prints it to stderr without a traceback and exits with code 2.
    """


class PredictionWarning(UserWarning):
    """Rows to predict are not like those of training; what was done about it."""
