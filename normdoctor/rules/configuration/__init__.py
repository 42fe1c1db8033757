"""Rules about the settings of a norm: eps, momentum, statistics."""
