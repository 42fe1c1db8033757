"""From a target string or a live object to a model, what it holds, and where it was built."""
