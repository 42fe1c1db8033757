"""Rules about activations, outputs and the losses behind them."""
