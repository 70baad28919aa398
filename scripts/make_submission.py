"""Pack masks for a benchmark's server, after a check of everything that it would reject.

    python scripts/make_submission.py youtube --results_path out/yv19 --output yv19.zip
    python scripts/make_submission.py davis --split test-dev --results_path out/td --output td.zip
    python scripts/make_submission.py youtube --check yv19.zip

The zip file is checked again before the command ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.command_line import script_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("benchmark", choices=("youtube", "davis"))
    parser.add_argument(
        "--yv_path",
        type=Path,
        default=Path("data/YouTube"),
        help="folder of YouTube-VOS (default: data/YouTube)",
    )
    parser.add_argument(
        "--davis_path",
        type=Path,
        default=Path("data/DAVIS/2017"),
        help="folder of DAVIS 2017 (default: data/DAVIS/2017)",
    )
    parser.add_argument("--split", help="split (default: valid of YouTube-VOS, test-dev of DAVIS)")
    parser.add_argument("--results_path", type=Path, help="folder of masks of an eval script")
    parser.add_argument("--output", type=Path, help="zip file to write")
    parser.add_argument("--check", type=Path, metavar="ZIP", help="only check this zip file")
    arguments = parser.parse_args(argv)
    if (arguments.check is None) == (arguments.results_path is None or arguments.output is None):
        parser.error("give either --results_path and --output, or --check")
    return arguments


if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    parse()

from evaluation.submissions import Submission, check_zip, write_zip


def main(argv: Sequence[str] | None = None) -> int:
    """Pack or check; return the exit status: 0, or 2 if a server would reject the masks."""
    arguments = parse(argv)
    try:
        if arguments.benchmark == "youtube":
            submission = Submission.of_youtube(arguments.yv_path, arguments.split or "valid")
        else:
            submission = Submission.of_davis(arguments.davis_path, arguments.split or "test-dev")
        if arguments.check is None:
            write_zip(submission, arguments.results_path, arguments.output)
        path = arguments.check or arguments.output
        check_zip(submission, path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    num_masks, num_videos = len(submission.expected()), len(submission.videos)
    print(f"{path}: {num_masks} masks of {num_videos} videos, no problems.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
