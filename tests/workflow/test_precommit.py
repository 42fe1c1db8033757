"""The hooks, run by pre-commit itself in a repository of git."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def test_the_hooks_run_in_the_environment_of_the_model():
    hooks = {hook["id"]: hook for hook in yaml.safe_load(HOOKS.read_text(encoding="utf-8"))}
    assert list(hooks) == ["normdoctor", "normdoctor-fix"]
    for hook in hooks.values():
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False
        assert hook["require_serial"] is True
        for name in ("net.py", "a/b.py", "pyproject.toml", "sub/normdoctor.toml"):
            assert re.search(hook["files"], name)
        for name in ("README.md", "my-pyproject.toml", "net.pyc", "data.toml"):
            assert not re.search(hook["files"], name)


def test_pre_commit_runs_them(project, surroundings, tmp_path):
    pytest.importorskip("pre_commit")
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    env = surroundings | {
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
    }
    env |= {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(*command, folder):
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)

    hooks = tmp_path / "hooks"
    hooks.mkdir()
    shutil.copy(HOOKS, hooks)
    folder = project("fixable")
    work = tmp_path / "work"
    work.mkdir()
    for name in ("net.py", "normdoctor.toml"):
        (folder / name).rename(work / name)
    for place in (hooks, work):
        run("git", "init", "-q", "-b", "main", folder=place)
    run("git", "add", ".", folder=hooks)
    run("git", "commit", "-qm", "hooks", folder=hooks)
    rev = run("git", "rev-parse", "HEAD", folder=hooks).stdout.strip()
    listed = "\n".join(f"    - id: {name}" for name in ("normdoctor-fix", "normdoctor"))
    (work / ".pre-commit-config.yaml").write_text(
        f"repos:\n- repo: {hooks}\n  rev: {rev}\n  hooks:\n{listed}\n"
    )
    run("git", "add", ".", folder=work)
    command = (sys.executable, "-m", "pre_commit", "run")
    first = run(*command, folder=work)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "files were modified by this hook" in first.stdout
    assert "bias=False" in (work / "net.py").read_text()
    (work / "README.md").write_text("words\n")
    run("git", "add", ".", folder=work)
    second = run(*command, folder=work)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("Passed") == 2
    skipped = run(*command, "--files", "README.md", folder=work)
    assert skipped.stdout.count("Skipped") == 2, skipped.stdout
