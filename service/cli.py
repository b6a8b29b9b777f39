"""The commands: each parses its words and calls one function, whose module is loaded only then."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from service.exits import FAILURE, INTERRUPTED, SUCCESS, USAGE, CommandError, UsageError
from service.validation import ConfigurationError
from storage.errors import StorageError

Add = Callable[..., argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with one line; `--help` says what is allowed."""
        self.exit(USAGE, f"{self.prog}: {message}; allowed: see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    parsed = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        status = command(parsed)
        sys.stdout.flush()
    except (ConfigurationError, UsageError) as error:
        return _ended(USAGE, str(error))
    except BrokenPipeError:  # the reader of our output has gone, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except (CommandError, StorageError, OSError) as error:
        return _ended(FAILURE, str(error))
    except KeyboardInterrupt:
        return _ended(INTERRUPTED, "interrupted")
    return status


def parser() -> Parser:
    """The words of every command."""
    top = Parser(
        prog="hounsfield", description="A DICOM node that runs AI models.", allow_abbrev=False
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for add in (_run, _check, _status, _explain, _similar, _requeue, _models, _phantom, _demo):
        add(commands.add_parser)
    return top


def _ended(status: int, message: str) -> int:
    sys.stderr.write(f"hounsfield: {' '.join(message.split())}\n")
    return status


def _command(
    add: Add, name: str, *, does: str, run: Callable[[argparse.Namespace], int], config: bool = True
) -> argparse.ArgumentParser:
    made = add(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
    made.set_defaults(command=run)
    if config:
        made.add_argument("config", metavar="CONFIG", type=Path, help="the configuration (TOML)")
    return made


def _as_json(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", action="store_true", help="print one JSON document")


def _run(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import config, supervisor
        from service.node import UnknownRoleError

        roles = [role for role in words.role.split(",") if role]
        try:
            return supervisor.run(config.load(words.config), roles)
        except UnknownRoleError as error:
            raise UsageError(f"--{error}") from error

    made = _command(add, "run", does="run the node in the foreground", run=run)
    made.add_argument(
        "--role",
        default="",
        metavar="ROLE[,ROLE]",
        help="only these: receive, infer, deliver, maintain, web",
    )


def _check(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import check, config

        loaded = config.load(words.config)
        lacking: Mapping[str, Sequence[str]] = {}
        if any(model.artifact is not None for model in loaded.models):
            from service import model_check  # loads the science

            lacking = model_check.lacking(loaded)
        return check.check(loaded, echo=words.echo, lacking=lacking)

    made = _command(add, "check", does="validate a configuration and print it as resolved", run=run)
    made.add_argument(
        "--echo", action="store_true", help="ask every destination whether it answers"
    )


def _status(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import config, status

        return status.print_status(
            config.load(words.config),
            as_json=words.json,
            study=words.study,
            identifiers=words.identifiers,
        )

    made = _command(add, "status", does="show what the node has, did, and is waiting for", run=run)
    made.add_argument("--study", metavar="UID", help="only this study")
    made.add_argument(
        "--identifiers", action="store_true", help="with the patients' names and IDs, on the screen"
    )
    _as_json(made)


def _explain(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import config, explain

        return explain.explain(config.load(words.config), words.paths, as_json=words.json)

    made = _command(
        add, "explain", does="show what would be done with files, and why, without a node", run=run
    )
    made.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a file or a folder")
    _as_json(made)


def _similar(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import config, retrieval

        return retrieval.print_similar(
            config.load(words.config),
            study=words.study,
            series=words.series,
            path=words.path,
            count=words.k,
            as_json=words.json,
        )

    made = _command(add, "similar", does="show the studies most similar to one", run=run)
    query = made.add_mutually_exclusive_group(required=True)
    query.add_argument("--study", metavar="UID", help="a study that the node has analysed")
    query.add_argument("--series", metavar="UID", help="a series that the node has analysed")
    query.add_argument("--path", metavar="DIR", type=Path, help="a folder of one series")
    made.add_argument("-k", metavar="N", type=int, default=5, help="how many (default: 5)")
    _as_json(made)


def _requeue(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import config, requeue

        if words.new and words.study is None:
            raise UsageError("--new: is of one study; allowed: with --study UID")
        loaded = config.load(words.config)
        if words.new:
            return requeue.ask_new(loaded, study=words.study, model=words.model)
        return requeue.requeue(loaded, study=words.study, model=words.model)

    made = _command(add, "requeue", does="run analyses again", run=run)
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--study", metavar="UID", help="all of this study")
    which.add_argument("--failed", action="store_true", help="all that failed")
    made.add_argument("--model", metavar="NAME", help="only those of this model")
    made.add_argument(
        "--new",
        action="store_true",
        help="with --study: repeat nothing, but run what the routes ask for since it came",
    )


def _models(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import config

        if words.add is not None:
            from service import model_add  # loads the science

            return model_add.add(words.add)
        if words.trust is not None:
            from service import model_trust  # loads none: it shows what may be hostile

            return model_trust.trust(config.load(words.config), words.trust, yes=words.yes)
        from service import model_list

        return model_list.print_models(config.load(words.config), as_json=words.json)

    made = _command(
        add, "models", does="list the models, what they want and what they write", run=run
    )
    _as_json(made)
    made.add_argument(
        "--add", metavar="PATH", type=Path, help="write the sidecar of a model's folder or file"
    )
    made.add_argument(
        "--trust", metavar="NAME", help="show what a model would run, and record that it may"
    )
    made.add_argument("--yes", action="store_true", help="with --trust: do not ask")


def _phantom(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import phantom

        return phantom.write(words.directory)

    made = _command(
        add, "phantom", does="write a synthetic thorax CT series", run=run, config=False
    )
    made.add_argument("directory", metavar="DIR", type=Path, help="a new or empty folder")


def _demo(add: Add) -> None:
    def run(words: argparse.Namespace) -> int:
        from service import demo

        return demo.run(study=words.study, once=words.once)

    made = _command(
        add, "demo", does="run a node with a scanner and a PACS around it", run=run, config=False
    )
    made.add_argument("--study", metavar="DIR", type=Path, help="send these files")
    made.add_argument("--once", action="store_true", help="end when the results are back")


if __name__ == "__main__":
    sys.exit(main())
