"""Commands one after the other, as one process that is stopped and judged as a whole.

    python -m unclip_jax.launch.chain -- COMMAND … -- COMMAND …

Signals reach the command that runs. The first that fails ends the chain with its exit code.
"""

import itertools
import sys
from collections.abc import Sequence

from .child import run


def chained(python: str, commands: Sequence[Sequence[str]]) -> list[str]:
    """The argument list that runs `commands` as one."""
    if len(commands) == 1:
        return list(commands[0])
    words = itertools.chain.from_iterable(("--", *command) for command in commands)
    return [python, "-m", "unclip_jax.launch.chain", *words]


def main(arguments: Sequence[str]) -> int:
    """Runs the commands; returns the exit code of the last that ran."""
    for is_mark, words in itertools.groupby(arguments, lambda word: word == "--"):
        if not is_mark:
            code = run(list(words))
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
