"""A sentiment classifier: embedding, LSTM, LayerNorm on the last hidden state, linear head.

LayerNorm suits recurrent networks because its statistics do not depend on the batch or on the length of the
sequence (Ba et al., 2016).
"""

import torch
from torch import nn


class SentimentLSTM(nn.Module):
    def __init__(self, vocabulary: int = 5000, width: int = 64, hidden: int = 128, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True, dropout=0.2)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens):
        _, (hidden, _) = self.lstm(self.embedding(tokens))
        return self.head(self.norm(hidden[-1]))


model = SentimentLSTM()
inputs = torch.randint(1, 5000, (4, 32))
