#!/usr/bin/env python3
"""Records a real terminal session as an SVG picture for the documentation.

    pip install rich==14.1.0 pyte==0.8.2 pexpect==4.9.0
    tools/record_terminal.py docs/img/chat.svg 'sotto chat' 'What is the capital of France?' /exit

Starts the command in a pseudo-terminal, types each line when the program has been quiet for a while, and draws the
final screen. Nothing in the picture is edited.
"""

import sys

import pexpect
import pyte
from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 92, 40
QUIET_SECONDS = 12


def read_until_quiet(child, stream):
    while True:
        try:
            stream.feed(child.read_nonblocking(65536, timeout=QUIET_SECONDS))
        except (pexpect.TIMEOUT, pexpect.EOF):
            return


def main():
    target, shown, *lines = sys.argv[1:]
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=200)
    stream = pyte.Stream(screen)
    child = pexpect.spawn("/bin/sh", ["-c", shown], encoding="utf-8", dimensions=(LINES, COLUMNS), timeout=300)
    read_until_quiet(child, stream)
    for line in lines:
        child.send(line + "\r")
        read_until_quiet(child, stream)
    child.close()
    text = "\n".join(row.rstrip() for row in screen.display).strip("\n")
    console = Console(record=True, width=COLUMNS, file=open("/dev/null", "w"))
    console.print(Text(f"$ {shown}", style="bold green"))
    console.print(Text(text), highlight=False)
    console.save_svg(target, title="sotto")


if __name__ == "__main__":
    main()
