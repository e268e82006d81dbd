"""The noise monitor inside of training frameworks."""
