"""Where the parts meet: trials, comparison, search, fit, the article, and the results they write."""
