"""`normdoctor check` with the real rules on real files."""

from __future__ import annotations

import json

from click.testing import CliRunner

from normdoctor.cli import main


def test_what_forward_prints_is_no_part_of_the_report(tmp_path):
    file = tmp_path / "loud.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Net(nn.Linear):\n"
        "    def forward(self, x):\n        print('loud')\n        return super().forward(x)\n\n\n"
        "net = Net(4, 4)\ninputs = torch.zeros(2, 4)\n"
    )
    result = CliRunner().invoke(main, ["check", str(file), "--output-format", "json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["targets"]
    assert "loud" in result.stderr


def test_a_node_id_beside_the_whole_file_restricts_only_itself(tmp_path):
    file = tmp_path / "model.py"
    file.write_text("import torch\nfrom torch import nn\nnet = nn.Linear(4, 4)\ninputs = torch.zeros(2, 4)\n")
    result = CliRunner().invoke(main, ["check", str(file), f"{file}::net::ND101", "-v"])
    assert result.output.count("::ND101 PASSED") == 2
    assert result.output.count("::ND201 PASSED") == 1
