"""From scores to words: paired tests, their correction, and the claims. No torch."""
