"""The commands in the order of `internimage --help`, and what becomes of their errors.

Exit codes: 0 done, 1 failed, 2 wrong usage. The result goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from internimage.cli import (
    bench,
    convert,
    demo,
    deploying,
    env,
    evaluate,
    info,
    models,
    planning,
    predict,
    recipes,
    shard,
    train,
)
from internimage.cli.terminal import installed_version, log_to_stderr, shown, stderr
from internimage.errors import BackendUnavailable, MissingExtra, UnknownName
from internimage.processors import let_threads_sleep

FAILED, WRONG_USAGE = 1, 2


class Commands(TyperGroup):
    """Turns errors that the user can mend into one message and an exit code; others are bugs and show their trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except UnknownName as error:
            _end(error, WRONG_USAGE)
        except BrokenPipeError:
            raise  # the reader of stdout has gone, as in `internimage list | head`: no error
        except (ValueError, OSError, ArithmeticError, MemoryError, BackendUnavailable, MissingExtra) as error:
            _end(error, FAILED)
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # of torch, which is not imported here
                raise
            _end(error, FAILED)


def _end(error: BaseException, exit_code: int) -> NoReturn:
    stderr().print("error:", style="bold red", end=" ")
    stderr().print(shown(error) or type(error).__name__, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(exit_code) from error


app = typer.Typer(
    name="internimage",
    help="InternImage: predict, evaluate, train, convert and benchmark; everything the Python package does.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"internimage {installed_version('internimage') or 'of a checkout, not installed'}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    let_threads_sleep()  # before a command imports torch


app.command("demo")(demo.demo)
app.command("env")(env.env)
app.command("list")(models.list_models)
app.command("info")(info.info)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("plan")(planning.plan)
app.command("recipe")(recipes.print_recipe)
app.command("shard")(shard.shard)
app.command("export")(deploying.export)
app.command("convert")(convert.convert)
app.command("bench")(bench.bench)
app.command("serve")(deploying.serve)


def main() -> None:
    """Run the command line of this process and end it with its exit code."""
    app()
