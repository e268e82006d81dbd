"""The file of a monitored run: what it says, in numbers, words and pictures."""
