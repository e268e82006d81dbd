"""Loss functions: one loss per sample, or the single number that a model returns itself."""
