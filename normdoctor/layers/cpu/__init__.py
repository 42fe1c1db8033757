"""The norms on a CPU where torch's own function is slow, as compositions of torch's kernels."""
