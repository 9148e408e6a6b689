"""``edge-sdk completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

EPILOG = """\
examples:
  edge-sdk completion bash >> ~/.bashrc
  edge-sdk completion zsh > ~/.zfunc/_edge-sdk
"""

_BASH = """\
_edge_sdk() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} typed="${{COMP_WORDS[*]:1:COMP_CWORD-1}} " words
  case "$typed" in
{cases}
    *) words="{commands}" ;;
  esac
  if [[ $COMP_CWORD -gt 1 && $current != -* && $words == -* ]]; then
    COMPREPLY=($(compgen -f -- "$current"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}}
complete -o filenames -F _edge_sdk edge-sdk
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    from edge_sdk.cli.main import COMMANDS, build_parser

    cases = "\n".join(
        f'    "{name} "*) words="{" ".join(words)}" ;;' for name, words in _cases(build_parser())
    )
    script = _BASH.format(cases=cases, commands=" ".join(COMMANDS))
    # zsh runs bash completions through its compatibility layer.
    print(f"autoload -U bashcompinit && bashcompinit\n{script}" if args.shell == "zsh" else script)
    return 0


def _cases(parser: argparse.ArgumentParser, typed: str = "") -> Iterator[tuple[str, list[str]]]:
    """What has been typed and what may follow it; the longer before what it begins with."""
    options = [name for action in parser._actions for name in action.option_strings]
    commands: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands |= action.choices
    for name, command in commands.items():
        yield from _cases(command, f"{typed} {name}".strip())
    if typed:
        yield typed, [*commands, *options]
