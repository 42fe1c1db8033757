"""The data cannot be downloaded; the model is built after the data."""

import gzip
import urllib.request

import torch
import torch.nn as nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
input_size = 784
hidden_size = 500
num_classes = 10

URL = "http://data.example.org/mnist/train-images-idx3-ubyte.gz"
with urllib.request.urlopen(URL, timeout=10) as response:
    images = gzip.decompress(response.read())


class NeuralNet(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(NeuralNet, self).__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        out = self.fc1(x)
        out = self.relu(out)
        return self.fc2(out)


model = NeuralNet(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

for i in range(0, len(images), 100):
    outputs = model(images[i : i + 100])
    loss = criterion(outputs, None)
    loss.backward()
