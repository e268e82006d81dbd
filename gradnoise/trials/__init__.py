"""Short training from where a model and its optimizer stand, on copies."""
