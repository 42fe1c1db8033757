"""From a model to facts: load, find inputs, record one forward, extract. The home of torch.fx."""
