"""Rules that read measurements: activations, normalization and gradients as a model runs."""
