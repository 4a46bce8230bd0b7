"""What is taken home: ensembles, intervals, checkpoints, prediction, export."""
