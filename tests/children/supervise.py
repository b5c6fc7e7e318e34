"""A supervisor in a process of its own: `supervise.py GRACE SCRIPT[,ARGUMENT…]…`; a child has its script's name."""

import sys
from pathlib import Path

from cli.supervisor import Child, Supervisor


def child(words: str) -> Child:
    script, *arguments = words.split(",")
    return Child(script, (sys.executable, str(Path(__file__).with_name(f"{script}.py")), *arguments))


def say(message: str) -> None:
    print(f"[{message}]", flush=True)


supervisor = Supervisor([child(words) for words in sys.argv[2:]], grace=float(sys.argv[1]), on_event=say)
sys.exit(supervisor.run(install_signals=True))
