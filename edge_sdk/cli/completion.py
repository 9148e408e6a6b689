"""``edge-sdk completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse

EPILOG = """\
examples:
  edge-sdk completion bash >> ~/.bashrc
  edge-sdk completion zsh > ~/.zfunc/_edge-sdk
"""

_BASH = """\
_edge_sdk() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words
  case "$command" in
{cases}
    *) words="{commands}" ;;
  esac
  if [[ $COMP_CWORD -gt 1 && $current != -* ]]; then
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

    parsers = next(
        action for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ).choices  # fmt: skip
    cases = "\n".join(
        f'    {name}) words="{" ".join(_options(parser))}" ;;' for name, parser in parsers.items()
    )
    script = _BASH.format(cases=cases, commands=" ".join(COMMANDS))
    # zsh runs bash completions through its compatibility layer.
    print(f"autoload -U bashcompinit && bashcompinit\n{script}" if args.shell == "zsh" else script)
    return 0


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions for name in action.option_strings]
