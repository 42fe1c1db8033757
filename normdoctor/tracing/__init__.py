"""From a model to facts: find inputs, record one forward, extract. The home of torch.fx."""
