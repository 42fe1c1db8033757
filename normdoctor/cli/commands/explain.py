"""`normdoctor explain`: the page of a rule."""

from __future__ import annotations

import click

from normdoctor.cli.options import make_style, offering
from normdoctor.errors import UsageError


@click.command(short_help="Explain a rule: what it finds, why, and what to do.")
@click.argument("rule", required=False, metavar="[CODE|NAME]", shell_complete=offering("rule"))
@click.option("--all", "everything", is_flag=True, help="The pages of all rules.")
@click.option("--output-format", "layout", type=click.Choice(["text", "json"]), default="text")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto")
def command(rule: str | None, everything: bool, layout: str, color: str) -> None:
    """Explain a rule: what it finds, why that is bad, and what to do."""
    from normdoctor.output.catalogue import page, pages_json
    from normdoctor.rules import all_rules, load_rule
    from normdoctor.selection import unknown_rule_hint

    if everything == (rule is not None):
        raise UsageError("expected one rule, or --all", hint="For example: normdoctor explain ND101")
    if rule is None:
        chosen = all_rules()
    elif found := load_rule(rule):
        chosen = (found,)
    else:
        raise UsageError(f"unknown rule `{rule}`", hint=unknown_rule_hint(rule))
    style = make_style(color, False, 0)
    if layout == "json":
        click.echo(pages_json(chosen, alone=not everything), nl=False)
    else:
        click.echo("\n\n".join(page(one, style) for one in chosen), color=style.color)
