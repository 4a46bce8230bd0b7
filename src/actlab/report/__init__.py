"""What is looked at: tables, figures, the page, TensorBoard files. Reads results only, without torch."""
