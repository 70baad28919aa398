"""Every command in the README and in docs/ is one: files exist, flags are known, values parse."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from util.parse_settings import parse_eval, parse_train
from util.presets import EVAL_SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTERS = re.compile(r"(python3?|torchrun|make|pip|tensorboard)\b")


def commands(page: Path) -> list[str]:
    """Lines of bash blocks, and what stands in backticks as a command."""
    text = page.read_text()
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        found += block.replace("\\\n", " ").splitlines()
    inline = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found += [code for code in re.findall(r"`([^`\n]+)`", inline) if STARTERS.match(code)]
    return [line.split(" #")[0].strip() for line in found if line.strip() and line[0] != "#"]


CASES = [(page.name, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), CASES)
def test_a_command_of_the_pages(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
        return
    scripts = [number for number, word in enumerate(words) if word.endswith(".py")]
    if not scripts:
        assert words[0] in ("pip", "tensorboard", "torchrun", "python"), command
        return
    script, flags = Path(words[scripts[0]]), words[scripts[0] + 1 :]
    assert (ROOT / script).is_file()
    if flags in (["..."], ["--help"]):
        return
    if script.name == "train.py":
        parse_train(flags)
    elif script.name in EVAL_SCRIPTS.values():
        (name,) = (key for key, value in EVAL_SCRIPTS.items() if value == script.name)
        required = [] if "--output" in flags else ["--output", "o"]
        parse_eval(name, [*flags, *required])
    else:
        module = importlib.import_module(".".join(script.with_suffix("").parts))
        with pytest.raises(SystemExit):
            module.main(["--help"])
        known = capsys.readouterr().out
        for flag in flags:
            assert not flag.startswith("-") or f"{flag} " in f"{known} ", flag


def test_no_page_is_unfinished() -> None:
    assert not [page.name for page in PAGES if "@@" in page.read_text()]


def test_there_are_commands() -> None:
    assert len(CASES) > 20
