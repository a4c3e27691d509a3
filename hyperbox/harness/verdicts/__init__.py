"""Gates: what the samples of a cell say about a target, and in which words."""
