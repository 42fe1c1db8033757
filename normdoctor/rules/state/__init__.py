"""Rules about what a module registers, its mode, and its set-up for training."""
