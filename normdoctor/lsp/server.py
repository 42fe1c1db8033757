"""The language server: checks a file when it is opened or saved, and never waits for the check.

Diagnostics carry the rule, its figures and other places; hovering shows the rule's page; code actions fix
what `check --fix` can fix, or silence a finding with a comment.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls import uris
from pygls.lsp.server import LanguageServer

import normdoctor
from normdoctor.lsp.diagnostics import SOURCE, diagnostics, edits_of, unchecked
from normdoctor.lsp.running import Job, job_of, run

#: How many checks run at one time: each loads torch.
AT_ONCE = 2


class Server(LanguageServer):
    """The checks that run, and what each file's last one found."""

    def __init__(self, seconds: float) -> None:
        super().__init__(SOURCE, normdoctor.__version__)
        self.seconds = seconds
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.found: dict[str, dict[str, list[types.Diagnostic]]] = {}
        self.room = asyncio.Semaphore(AT_ONCE)

    def start(self, uri: str) -> None:
        """Check a file; a check of it that still runs is stopped."""
        self.stop(uri)
        task = asyncio.ensure_future(self.check(uri))
        self.tasks[uri] = task
        task.add_done_callback(lambda _: self.tasks.pop(uri) if self.tasks.get(uri) is task else None)

    def stop(self, uri: str) -> None:
        """Stop the check of a file."""
        if task := self.tasks.pop(uri, None):
            task.cancel()

    async def check(self, uri: str) -> None:
        """Run the check and show what it finds."""
        job = self.job(uri)
        if job is None:
            self.show(uri, {})
            return
        words = ["check", "--output-format", "json", "--color", "never", "--quiet", "--", *job.targets]
        try:
            async with self.room:
                done = await run(words, job.folder, self.seconds)
            report = json.loads(done.stdout) if done.stdout else None
        except TimeoutError:
            self.show(uri, {uri: [unchecked(f"it took more than {self.seconds:g} s")]})
            return
        except (OSError, ValueError) as error:
            self.show(uri, {uri: [unchecked(str(error))]})
            return
        if report is None:
            self.show(uri, {uri: [unchecked(done.error)]})
            return
        for problem in report["problems"]:
            self.log(f"{problem['target']}: {problem['message']}")
        self.show(uri, diagnostics(report, job.folder, uri, self.range_of, page_address))

    def job(self, uri: str) -> Job | None:
        """What to check for a file; None for files that hold no Python or no model."""
        path = uris.to_fs_path(uri)
        if path is None or not path.endswith(".py") or not uri.startswith("file:"):
            return None
        root = self.workspace.root_path
        return job_of(Path(path), self.workspace.get_text_document(uri).source, Path(root) if root else None)

    def show(self, uri: str, found: dict[str, list[types.Diagnostic]]) -> None:
        """Publish what the check of one file found, with what others found in the same files."""
        before = self.found.pop(uri, {})
        if found:
            self.found[uri] = found
        for name in dict.fromkeys([*before, *found, uri]):
            listed: list[types.Diagnostic] = []
            for one in self.found.values():
                listed += [item for item in one.get(name, []) if item not in listed]
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(name, listed))

    def range_of(self, file: Path, place: dict[str, Any]) -> types.Range:
        """The range of a place; to the end of its line where its own end is not known."""
        lines = self.workspace.get_text_document(uris.from_fs_path(str(file)) or "").lines
        first = max(place["line"] - 1, 0)
        last = max(place["end_line"] - 1, first)
        width = len(lines[first].rstrip("\r\n")) if first < len(lines) else 0
        end = place["end_column"] - 1 if place["end_line"] else width
        whole = types.Range(
            types.Position(first, max(place["column"] - 1, 0)), types.Position(last, max(end, 0))
        )
        if last >= len(lines):
            return whole
        return self.workspace.position_codec.range_to_client_units(lines, whole)

    def log(self, text: str) -> None:
        """Write to the editor's log."""
        self.window_log_message(types.LogMessageParams(types.MessageType.Info, text))

    def at(self, uri: str, position: types.Position) -> list[types.Diagnostic]:
        """The findings that are shown at a position."""
        every = [item for one in self.found.values() for item in one.get(uri, [])]
        return [item for item in every if item.code and item.range.start <= position <= item.range.end]

    async def fix(self, uri: str, code: str, unsafe: bool) -> types.WorkspaceEdit | None:
        """The edit that `check --fix` would make for a rule; None, and a message, where there is none."""
        job = self.job(uri)
        words = ["check", "--diff", "--quiet", "--color", "never", "--select", code, "--fixable", code]
        reason = "the file holds no model"
        if job is not None:
            try:
                async with self.room:
                    more = ["--unsafe-fixes"] if unsafe else []
                    done = await run([*words, *more, "--", *job.targets], job.folder, 2 * self.seconds)
            except TimeoutError:
                reason = f"it took more than {2 * self.seconds:g} s"
            else:
                if done.stdout:
                    return types.WorkspaceEdit(changes=edits_of(done.stdout, job.folder))
                reason = done.error if done.code == 2 else "no fix stands its proof"
        text = f"normdoctor: {code} was not fixed: {reason}"
        self.window_show_message(types.ShowMessageParams(types.MessageType.Warning, text))
        return None


def page_address(code: str) -> str:
    """Where a rule's page is; empty where the package does not say where its documentation is."""
    from normdoctor.output.formats.sarif import documentation
    from normdoctor.rules import load_rule

    rule, address = load_rule(code), documentation()
    return f"{address.rstrip('/')}/rules/{rule.name}.html" if rule is not None and address else ""


def make_server(seconds: float, *, on_open: bool = True) -> Server:
    """A server that is ready to be started.

    Args:
        seconds: How long a check may take.
        on_open: Check files when they are opened, too, not only when they are saved.
    """
    server = Server(seconds)

    async def opened(params: types.DidOpenTextDocumentParams) -> None:
        if on_open:
            server.start(params.text_document.uri)

    async def saved(params: types.DidSaveTextDocumentParams) -> None:
        server.start(params.text_document.uri)

    async def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.stop(params.text_document.uri)
        server.show(params.text_document.uri, {})

    def hover(params: types.HoverParams) -> types.Hover | None:
        return _hover(server.at(params.text_document.uri, params.position))

    kinds = types.CodeActionOptions([types.CodeActionKind.QuickFix], resolve_provider=True)

    def actions(params: types.CodeActionParams) -> list[types.CodeAction]:
        lines = server.workspace.get_text_document(params.text_document.uri).lines
        return _actions(params.text_document.uri, params.context.diagnostics, lines)

    async def resolve(action: types.CodeAction) -> types.CodeAction:
        data = action.data
        if isinstance(data, dict) and action.edit is None:
            action.edit = await server.fix(data["uri"], data["code"], data["unsafe"])
        return action

    async def shutdown(_: None) -> None:
        for uri in list(server.tasks):
            server.stop(uri)

    # As calls: decorators of a package that is not always there would leave these functions untyped.
    server.feature(types.TEXT_DOCUMENT_DID_OPEN)(opened)
    server.feature(types.TEXT_DOCUMENT_DID_SAVE)(saved)
    server.feature(types.TEXT_DOCUMENT_DID_CLOSE)(closed)
    server.feature(types.TEXT_DOCUMENT_HOVER)(hover)
    server.feature(types.TEXT_DOCUMENT_CODE_ACTION, kinds)(actions)
    server.feature(types.CODE_ACTION_RESOLVE)(resolve)
    server.feature(types.SHUTDOWN)(shutdown)
    return server


def _hover(items: list[types.Diagnostic]) -> types.Hover | None:
    from normdoctor.rules import load_rule
    from normdoctor.rules.base import page_of

    rules = [load_rule(code) for code in dict.fromkeys(str(item.code) for item in items)]
    pages = [f"# {rule.code} {rule.name}\n\n{page_of(rule)}" for rule in rules if rule is not None]
    text = "\n\n---\n\n".join(pages)
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, text)) if pages else None


def _actions(
    uri: str, items: list[types.Diagnostic] | tuple[types.Diagnostic, ...], lines: Any
) -> list[types.CodeAction]:
    """Fixes, whose edit is made when one is chosen, and comments that silence."""
    made: dict[str, types.CodeAction] = {}
    for item in items:
        fix = item.data.get("fix") if isinstance(item.data, dict) else None
        if item.source != SOURCE or not item.code:
            continue
        if fix and fix["applicability"] != "display" and (fix["edits"] or fix.get("steps")):
            unsafe = fix["applicability"] == "unsafe"
            title = f"Fix {item.code} where it is found ({fix['applicability']}): {fix['title']}"
            data = {"uri": uri, "code": str(item.code), "unsafe": unsafe}
            made[title] = types.CodeAction(title, types.CodeActionKind.QuickFix, [item], data=data)
        if edit := _silence(str(item.code), item.range.start.line, lines):
            title = f"Silence {item.code} on this line"
            changed = types.WorkspaceEdit(changes={uri: [edit]})
            made[title] = types.CodeAction(title, types.CodeActionKind.QuickFix, [item], edit=changed)
    return list(made.values())


def _silence(code: str, number: int, lines: Any) -> types.TextEdit | None:
    """A comment at the end of a line, or the code in the one that is there."""
    if number >= len(lines):
        return None
    line = lines[number].rstrip("\r\n")
    there = re.search(r"# normdoctor: ignore\[[^\]]*", line)
    if there is None and ("#" in line or line.endswith("\\") or line.count('"""') % 2):
        return None
    text = f", {code}" if there else f"  # normdoctor: ignore[{code}]"
    units = len(line[: there.end() if there else len(line)].encode("utf-16-le")) // 2
    at = types.Position(number, units)
    return types.TextEdit(types.Range(at, at), text)
