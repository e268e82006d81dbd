"""Estimates with intervals: of means, of quotients, of functions of estimates."""
