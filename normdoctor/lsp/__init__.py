"""A language server (extra `lsp`): what `normdoctor check` finds, shown in an editor."""
