"""A training by the Trainer of transformers with NormDoctorCallback: figures for TensorBoard, and a report.

    pip install 'normdoctor[transformers]' tensorboard
    python examples/train_transformers.py

A small BERT with random weights learns to tell sentences by their first word.
"""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

from normdoctor.integrations import TensorBoard
from normdoctor.integrations.transformers import NormDoctorCallback

WORDS = 20


def data(count: int) -> list[dict[str, torch.Tensor]]:
    sentences = torch.randint(WORDS, (count, 12))
    labels = (sentences[:, 0] < WORDS // 2).long()
    return [{"input_ids": x, "labels": y} for x, y in zip(sentences, labels, strict=True)]


def main() -> None:
    set_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.1,
    )
    arguments = TrainingArguments(
        output_dir="output",
        num_train_epochs=2,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    # As a context: the Trainer tells its callbacks of no exception, and so no hook is left behind.
    with NormDoctorCallback(every=5, sink=TensorBoard("runs")) as doctor:
        trainer = Trainer(
            model=BertForSequenceClassification(config),
            args=arguments,
            train_dataset=data(1024),
            eval_dataset=data(128),
            callbacks=[doctor],
        )
        trainer.train()
    print(doctor.report())


if __name__ == "__main__":
    main()
