"""`sd4match`, also as `python -m sd4match`."""

from __future__ import annotations

import sys
import warnings

from sd4match.errors import SD4MatchError


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"sd4match: warning: {message}\n"


def main() -> None:
    """Run the command line: an error of ours is one line on stderr and exit code 2."""
    from sd4match.cli.app import app

    warnings.formatwarning = _one_line
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch|accelerate|huggingface_hub|PIL)\b")
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except SD4MatchError as error:
        print(f"sd4match: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        message = getattr(error, "format_message", None)  # click's, of which typer has a private copy
        if message is None:
            raise
        help_wanted = type(error).__name__ == "NoArgsIsHelpError"
        print(message() if help_wanted else f"sd4match: error: {' '.join(message().split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("sd4match: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
