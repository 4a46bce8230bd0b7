"""How often the verdict is wrong where the truth is known, and how often it finds what was planted."""
