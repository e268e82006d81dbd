"""Is the advice right? Problems, plain training as the truth, and predictions held to it."""
