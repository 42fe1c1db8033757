"""Thirty model files in the styles of public repositories: each gives its models without a flag."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from normdoctor.loading.target import Target, load

SCRIPTS = Path(__file__).parents[1] / "models" / "scripts"

#: File, then for each model its name, its class, and the shapes of its captured or declared inputs.
TABLE: dict[str, dict[str, tuple[str, Any]]] = {
    "annotated_config.py": {"Regressor": ("Regressor", None)},
    "checkpoint_missing.py": {"detector": ("Detector", None)},
    "cifar_argparse.py": {"net": ("Net", [(4, 3, 32, 32)])},
    "compiled.py": {"vit": ("TinyViT", [(2, 3, 16, 16)])},
    "course_loop.py": {"net": ("Sequential", [(6, 20)])},
    "cuda_calls.py": {"tagger": ("LSTMTagger", [(3, 11)])},
    "data_parallel.py": {"model": ("VGGish", [(2, 3, 16, 16)])},
    "declared_inputs.py": {"matcher": ("Matcher", {"ids": (4, 7), "pixels": (4, 64)})},
    "downloads_in_class.py": {"Conformer": ("Conformer", None)},
    "gan_classes.py": {"Generator": ("Generator", None), "PatchDiscriminator": ("PatchDiscriminator", None)},
    "gan_pair.py": {
        "generator": ("Generator", [(6, 16)]),
        "discriminator": ("Discriminator", [(6, 1, 8, 8)]),
    },
    "global_device.py": {"policy_net": ("DQN", [(10, 4)]), "target_net": ("DQN", [(10, 4)])},
    "gpt_config.py": {"GPT": ("GPT", None)},
    "hydra_like.py": {"Tower": ("Tower", None)},
    "lambda_factories.py": {
        "mixer_base": ("Mixer", None),
        "mixer_tiny": ("Mixer", None),
        "mixer_small": ("Mixer", None),
    },
    "lightning_missing.py": {"LitClassifier": ("LitClassifier", None)},
    "main_called.py": {"network": ("Sequential", [(5, 16)])},
    "main_guard.py": {"Net": ("Net", None)},
    "mnist_download.py": {"model": ("NeuralNet", None)},
    "model_dict.py": {"models.linear": ("Linear", [(8, 6)]), "models.deep": ("Deep", [(8, 6)])},
    "module_list.py": {f"ensemble.{index}": ("Member", [(4, 5)]) for index in range(3)},
    "package/nets/senet.py": {"SENet": ("SENet", None)},
    "required_args.py": {"model": ("Classifier", None)},
    "resnet_factories.py": {"ResNet10": ("ResNet", None), "ResNet18": ("ResNet", None)},
    "siblings/unet.py": {"UNet": ("UNet", None)},
    "swallowing.py": {"model": ("Sequential", [(2, 3)])},
    "sys_exit_end.py": {"ae": ("AutoEncoder", [(9, 30)])},
    "trainer_object.py": {"trainer.net": ("SiameseNet", [(6, 10), (6, 10), 0.5])},
    "usage_exit.py": {"SegHead": ("SegHead", None)},
    "wandb_missing.py": {"model": ("MLP", [(7, 10)])},
}

#: Where an import ends, and what the notes say about it.
STOPS = {
    "checkpoint_missing.py": "checkpoint_missing.py:22: FileNotFoundError",
    "cifar_argparse.py": "cifar_argparse.py:57: training began (backward)",
    "gan_pair.py": "gan_pair.py:71: training began (backward)",
    "main_called.py": "main_called.py:19: training began (backward)",
    "mnist_download.py": "the network is off while a target is imported (it asked for data.example.org)",
    "sys_exit_end.py": "sys_exit_end.py:24: it called sys.exit(0)",
    "trainer_object.py": "trainer_object.py:26: training began (backward)",
    "usage_exit.py": "usage_exit.py:7: it called sys.exit(2)",
}

LOSSES = {
    "cifar_argparse.py": [("cross_entropy", "net")],
    "course_loop.py": [("cross_entropy", "net")],
    "data_parallel.py": [("cross_entropy", "model")],
    "gpt_config.py": [("cross_entropy", "GPT")],
    "lightning_missing.py": [("cross_entropy", "LitClassifier")],
    "main_called.py": [("cross_entropy", "network")],
    "main_guard.py": [("nll_loss", "Net")],
    "trainer_object.py": [("binary_cross_entropy_with_logits", "trainer.net")],
}


def loaded(name: str) -> list[Target]:
    return load(str(SCRIPTS / name), import_timeout=10)


def shapes(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: shapes(item) for key, item in value.items()}
    return value


def inputs_of(target: Target) -> Any:
    if target.inputs is None:
        return None
    args = [shapes(value) for value in target.inputs.args]
    if not args:
        return shapes(target.inputs.kwargs)
    return args + list(shapes(target.inputs.kwargs).values())


def test_there_are_thirty() -> None:
    assert len(TABLE) == 30
    helpers = {"__init__.py", "version.py", "blocks.py", "tail.py", "helpers.py"}
    files = {
        path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py") if path.name not in helpers
    }
    assert files == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_each_gives_its_models(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    targets = loaded(name)
    found = {item.name.rpartition(":")[2]: (type(item.model).__name__, inputs_of(item)) for item in targets}
    assert found == TABLE[name]
    for target in targets:
        assert target.name.rpartition(":")[0].endswith(name)
        assert target.files[0] == str(SCRIPTS / name)
        assert target.inputs is None or target.inputs.source in ("captured", "declared")
        assert target.origins is not None
        parts = [module for module in target.model.modules() if target.origins.of(module)]
        assert len(parts) >= len(list(target.model.modules())) - 1, "all but the root were seen being built"
    assert capsys.readouterr().out == "", "the file's own prints go to stderr"


@pytest.mark.parametrize("name", STOPS)
def test_it_says_where_and_why_it_stopped(name: str) -> None:
    for target in loaded(name):
        assert target.stopped is not None
        assert STOPS[name] in target.stopped
        assert target.stopped in target.notes


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_read_from_the_file(name: str) -> None:
    (target,) = loaded(name)
    assert [(loss.kind, loss.model) for loss in target.losses] == LOSSES[name]


def test_files_that_end_have_no_stop() -> None:
    for name in ("model_dict.py", "main_guard.py", "gpt_config.py", "compiled.py"):
        assert all(target.stopped is None for target in loaded(name))


def test_the_note_names_placeholders_and_configs() -> None:
    (target,) = loaded("hydra_like.py")
    notes = "\n".join(target.notes)
    assert "built as Tower(ModelConfig())" in notes
    assert "surely_not_installed_hydra, surely_not_installed_omegaconf" in notes
    (required,) = loaded("required_args.py")
    assert "the required argument --num-classes got the placeholder 8" in required.notes
    assert required.model.head.out_features == 8


def test_optimizers_belong_to_their_models() -> None:
    generator, discriminator = loaded("gan_pair.py")
    assert [len(generator.optimizers), len(discriminator.optimizers)] == [1, 1]
    assert generator.optimizers[0] is not discriminator.optimizers[0]
    (trainer,) = loaded("trainer_object.py")
    assert isinstance(trainer.optimizers[0], torch.optim.RMSprop)


def test_weights_are_those_before_the_first_step() -> None:
    (target,) = loaded("course_loop.py")
    assert all(parameter.grad is None for parameter in target.model.parameters())
    assert not target.optimizers[0].state


def test_a_forward_that_imports_its_own_package_runs_while_active() -> None:
    (target,) = loaded("package/nets/senet.py")
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(ImportError):
        target.model(x)
    with target.active():
        assert target.model(x).shape == (2, 10)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("main_called.py:network", "network"),
        ("model_dict.py:models['deep']", "models.deep"),
        ("trainer_object.py:trainer.net", "trainer.net"),
        ("resnet_factories.py:ResNet18(num_classes=3)", "ResNet18(num_classes=3)"),
        ("resnet_factories.py:BasicBlock(8, 16, stride=2)", "BasicBlock(8, 16, stride=2)"),
        ("gpt_config.py::GPT", "GPT"),
        ("gpt_config.py::GPT::ND101", "GPT"),
        ("module_list.py:ensemble.1", "ensemble.1"),
    ],
)
def test_one_model_is_named(spec: str, name: str) -> None:
    (target,) = loaded(spec)
    assert target.name.rpartition("py:")[2] == name


def test_a_directory_gives_all_its_files_and_notes_those_without(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from torch import nn\nnet = nn.Linear(2, 2)\n")
    (tmp_path / "b.py").write_text("import torch\nx = 1\n")
    (tmp_path / "c.py").write_text(
        "from torch import nn\nclass C(nn.Module):\n    def forward(self, x): return x\n"
    )
    (tmp_path / "setup.py").write_text("raise SystemExit('torch')\n")
    targets = load(str(tmp_path))
    assert [Path(target.files[0]).name for target in targets] == ["a.py", "c.py"]
    assert any("skipped" in note and "b.py" in note for note in targets[0].notes)


def test_a_module_path_and_what_follows_the_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shop" / "nets"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .cnn import make\n")
    (package / "cnn.py").write_text(
        "from torch import nn\ndef make(kind, n=2):\n    assert kind == 'x'\n    return nn.Linear(n, n)\n"
    )
    monkeypatch.chdir(tmp_path)
    (target,) = load("shop.nets.cnn:make('x', 3)")
    assert target.name == "shop.nets.cnn:make('x', 3)"
    assert target.model.in_features == 3
    (through,) = load("shop.nets:make('x')")
    assert through.model.in_features == 2


def test_after_a_failure_only_definitions_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        "from torch import nn\n"
        "raise ValueError('no data')\n"
        "print('a bare call ran')\n"
        "for _ in range(3):\n    print('a loop ran')\n"
        "if __name__ != 'other':\n    print('a guard ran')\n"
        "try:\n    width = 3\nexcept ImportError:\n    width = 4\n"
        "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(width, 1)\n"
    )
    (target,) = load(str(path))
    assert target.model.in_features == 3
    assert "ran" not in capsys.readouterr().err


def test_a_warning_of_the_file_does_not_stop_it_where_warnings_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("import warnings\nwarnings.warn('old')\nfrom torch import nn\nnet = nn.Linear(2, 2)\n")
    (target,) = load(str(path))
    assert target.stopped is None


def test_classes_beside_the_instances_of_a_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        from torch import nn

        class Block(nn.Linear):
            pass

        class Generator(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block(4, 4)

            def forward(self, x):
                return self.block(x)

        class Critic(Generator):
            pass

        class CriticLoss(Generator):
            pass

        net = Generator()
    """
    (tmp_path / "gan.py").write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (target,) = load("gan.py")
    note = "checked as built in the file: `net`; not used there: Critic (to check: gan.py:Critic)"
    assert note in target.notes
    (target,) = load("gan.py:Critic")
    assert not any("not used there" in note for note in target.notes)
