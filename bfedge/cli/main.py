"""`bfedge`: finds the verb, and turns every failure into one clear line and an exit status.

0 done, 1 something the user can put right, 2 a bug of ours. Verbs are imported when they are called, so that
`--help` is quick and needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys

import click

import bfedge
from bfedge.errors import BfedgeError
from bfedge.report.words import printable

VERBS = {
    "demo": "Classify pictures with the model that comes with bfedge.",
    "train": "Train a model from a recipe.",
    "export": "Write a folder that runs a trained model on a device.",
    "flash": "Put an exported model onto its board.",
    "verify": "Prove that the deployed model computes what it should, on this machine or on a board.",
    "profile": "Show what a board measures, against the plan: time or instructions, memory, energy.",
    "bench": "Time inferences on a board, or this machine beside other runtimes.",
    "plan": "Show what a model takes, and which boards it fits: memory, instructions, energy.",
    "report": "Write one HTML page about a model: what it is, where it fits, what was measured.",
    "compare": "Set trained models side by side: accuracy, size, experts, time.",
    "paper": "Recompute what the papers claim, and say what does not hold.",
    "inspect": "Show what a packed file (.bfe) contains.",
    "devices": "List the boards that bfedge knows.",
    "doctor": "Show what is installed, what is missing for which board, and how to get it.",
}


class Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"bfedge.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bfedge.__version__, prog_name="bfedge")
def bfedge_command() -> None:
    """From a trained ButterflyViT to the same bits on every device."""


def main() -> None:
    if sys.stdout is None or sys.stderr is None:
        sys.exit(1)  # closed: there is nobody to talk to
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may not fit the terminal's encoding
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: nothing half-written is left behind
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Exit status of `bfedge ARGUMENTS`."""
    try:
        result = bfedge_command.main(arguments, prog_name="bfedge", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except BfedgeError as problem:
        return complain(problem.message, problem.hint)
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.format_message(), err=True)
        return 1
    except click.UsageError as problem:
        path = problem.ctx.command_path if problem.ctx else "bfedge"
        return complain(problem.format_message(), f"`{path} --help` lists the options")
    except click.ClickException as problem:
        return complain(problem.format_message(), None)
    except (click.Abort, KeyboardInterrupt):
        return complain("interrupted", None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing more to say
        return 1
    except OSError as problem:  # of the output, or of a path that no verb expected to fail
        name = f"`{problem.filename}`: " if problem.filename else ""
        return complain(f"{name}{problem.strerror or problem}", None)
    except MemoryError:
        return complain("this machine has too little memory for that", None)
    except Exception:
        import traceback

        traceback.print_exc()
        complain("this is a bug in bfedge", "please report it with the lines above")
        return 2


def complain(message: str, hint: str | None) -> int:
    click.echo(f"error: {printable(message)}", err=True)
    if hint:
        click.echo(f"hint: {printable(hint)}", err=True)
    return 1
