"""From a CSV to the batches of every fold: reading, column kinds, preprocessing, splits."""
