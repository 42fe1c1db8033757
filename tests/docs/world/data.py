import torch

loader = [(torch.randn(16, 3, 32, 32), torch.randint(10, (16,))) for _ in range(8)]
