"""One file for each example input: its words, its looks, and the truth about it."""
