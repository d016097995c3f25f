"""The experiments of the papers: short descriptions, one runner, our figures beside theirs."""
