"""Moves everything to the GPU without asking whether there is one."""

import torch
import torch.nn as nn

torch.backends.cudnn.benchmark = True
device = torch.device("cuda:0")


class LSTMTagger(nn.Module):
    def __init__(self, vocab=50, dim=8, hidden=12, tags=4):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.tag = nn.Linear(hidden, tags)
        self.scale = nn.Parameter(torch.ones(1, device="cuda"))

    def forward(self, tokens):
        out, _ = self.lstm(self.embed(tokens))
        return self.tag(self.norm(out)) * self.scale


tagger = LSTMTagger().cuda()
loss_function = nn.CrossEntropyLoss().cuda()
optimizer = torch.optim.SGD(tagger.parameters(), lr=0.1)
sentence = torch.randint(0, 50, (3, 11), device=device)
tags = torch.randint(0, 4, (3, 11)).to(device)
scores = tagger(sentence)
loss = loss_function(scores.view(-1, 4), tags.view(-1).cuda())
loss.backward()
