"""n gradients become sums: mean, |G|², trΣ and what their intervals need."""
