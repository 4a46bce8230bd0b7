"""Studies that survive: Optuna on a journal or a database, locks, workers, pruning."""
