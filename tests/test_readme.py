"""README and docs: commands parse, Python code runs, and files, links, options and names exist."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eval_davis
import train
from inference_memory_bank import POLICIES
from model.methods import METHODS
from util import presets
from util.parse_settings import parse_eval, parse_train

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
PAGES = [*dict.fromkeys(page for page in PAGES if page.parent.name[0] != ".")]
NAMES = {page: str(page.relative_to(ROOT)) for page in PAGES}
STARTERS = re.compile(r"(python3?|torchrun|make|pip|tensorboard)\b")

# Files of the published code, and a file that the reader writes.
NOT_HERE = {
    "download_model.py", "download_datasets.py", "download_bl30k.py",
    "evaluation/2017/evaluation_ours.py", "eval_davis_2016per101.py",
    "eval_davispreoneconv1046181localgparapoolperandfinaltip.py",
    "eval_youtubeoneconv10146181localgparapoolpeone.py", "my_method.py",
}  # fmt: skip
# Options of torchrun, torch.distributed.launch and argparse.
OTHER_OPTIONS = {
    "--help", "--nproc_per_node", "--master_port", "--max-restarts", "--nnodes", "--rdzv-endpoint",
    "--rdzv-backend", "--logdir",
}  # fmt: skip
PYTHON_PAGES = ("README.md", "docs/python.md")
PLUGIN_PAGE = DOCS / "plugins.md"


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    """Text in single backticks, outside code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def commands(page: Path) -> list[str]:
    """Lines of bash blocks, and inline code that is a command."""
    lines = []
    for block in blocks(page, "bash"):
        lines += block.replace("\\\n", " ").splitlines()
    lines += [code for code in inline_code(page) if STARTERS.match(code)]
    return [line.split(" #")[0].strip() for line in lines if line.strip() and line[0] != "#"]


CASES = [(NAMES[page], command) for page in PAGES for command in commands(page)]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder with my_method.py of docs/plugins.md; what it registers is removed afterwards."""
    (tmp_path / "my_method.py").write_text("\n\n".join(blocks(PLUGIN_PAGE, "python")))
    monkeypatch.setattr(sys, "path", [*sys.path])
    tables: list[dict[Any, Any]] = [
        METHODS, POLICIES, presets.METHOD_PRESETS, presets.STAGE_PRESETS,
        presets.EVAL_METHOD_PRESETS, presets.POLICY_OPTIONS,
    ]  # fmt: skip
    contents = [dict(table) for table in tables]
    yield tmp_path
    for table, content in zip(tables, contents, strict=True):
        table.clear()
        table.update(content)
    sys.modules.pop("my_method", None)


@pytest.mark.parametrize(("page", "command"), CASES)
def test_commands_parse(
    page: str,
    command: str,
    plugin: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
        return
    scripts = [number for number, word in enumerate(words) if word.endswith(".py")]
    if not scripts:
        assert words[0] in ("pip", "ssh", "tensorboard", "torchrun", "python"), command
        return
    script, options = Path(words[scripts[0]]), words[scripts[0] + 1 :]
    assert (ROOT / script).is_file()
    if options in (["..."], ["--help"]):
        return
    monkeypatch.chdir(plugin)
    if script.name == "train.py":
        parse_train(options)
    elif script.name in presets.EVAL_SCRIPTS.values():
        (name,) = (key for key, value in presets.EVAL_SCRIPTS.items() if value == script.name)
        required = [] if "--output" in options else ["--output", "o"]
        parse_eval(name, [*options, *required])
    else:
        module = importlib.import_module(".".join(script.with_suffix("").parts))
        with pytest.raises(SystemExit):
            module.main(["--help"])
        text = capsys.readouterr().out
        for option in options:
            if option.startswith("-"):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), option


def test_there_are_commands() -> None:
    assert len(CASES) > 40


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_code_runs(page: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, with small frames and weights."""
    monkeypatch.chdir(ROOT)
    frames = [np.full((48, 64, 3), 4 * index, np.uint8) for index in range(51)]
    masks = {0: np.zeros((48, 64), np.uint8)}
    masks[0][8:24, 8:24], masks[0][24:40, 24:40] = 1, 3
    names: dict[str, Any] = {
        "FOLDER": str(ROOT),
        "frames": frames,
        "first_mask": masks[0],
        "corrected_mask": masks[0],
        "mask_or_none": lambda frame: masks.get(int(frame[0, 0, 0]) // 4),
    }
    code = blocks(ROOT / page, "python")
    assert code
    for block in code:
        small = block.replace("size=480", "size=32")
        exec(small.replace("saves/stcn_small.pth", str(tiny_weights)), names)


def test_all_python_code_is_tested() -> None:
    pages = {NAMES[page] for page in PAGES if blocks(page, "python")}
    assert pages == {*PYTHON_PAGES, NAMES[PLUGIN_PAGE]}


def test_the_plugin_trains_and_segments(plugin: Path, synthetic: Path) -> None:
    file = str(plugin / "my_method.py")
    options = f"--plugin {file} --method mine --id mine --stage 3 --size tiny -i 1 --no_amp "
    options += "--backbone_weights none --crop_size 32 -b 2 --num_workers 0 --device cpu "
    options += f"--save_dir {plugin} "
    options += f"--davis_root {synthetic / 'DAVIS'} --yv_root {synthetic / 'YouTube'}"
    assert train.main(options.split()) == 0
    weights = plugin / "mine" / "mine_1.pth"
    for number, memory in enumerate(("", "--memory recent --mem_every 1")):
        output = plugin / f"masks{number}"
        options = f"--plugin {file} --model {weights} {memory} --output {output}"
        options += f" --davis_path {synthetic / 'DAVIS' / '2017'}"
        assert eval_davis.main(options.split()) == 0
        assert [*output.rglob("*.png")]


def slug(heading: str) -> str:
    """Anchor of a heading on GitHub."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=NAMES.values())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES.values())
def test_paths_exist(page: Path) -> None:
    folders = "annotator|datasets|docs|evaluation|inference|model|scripts|tests|util"
    kind = re.compile(rf"({folders})/[\w./*-]*|[\w*]+\.(py|md|toml|txt)|hubconf\.py")
    for code in inline_code(page):
        if kind.fullmatch(code) and code not in NOT_HERE and code != "log.txt":
            assert [*ROOT.glob(code)], code


def known_options() -> set[str]:
    options = set(OTHER_OPTIONS)
    sources = ("*.py", "scripts/**/*.py", "util/*.py", "annotator/options.py")
    for path in (path for pattern in sources for path in ROOT.glob(pattern)):
        options.update(re.findall(r"\"(--?\w+)\"", path.read_text()))
    text = (ROOT / "util" / "hyper_para.py").read_text()
    return options | {f"--{name}" for name in re.findall(r"^    (\w+): .*= _", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=NAMES.values())
def test_options_exist(page: Path) -> None:
    known = known_options()
    for code in inline_code(page):
        for word in code.split():
            option = word.split("=")[0]
            if not option.startswith("--"):
                continue
            if option.endswith("*"):
                assert any(name.startswith(option[:-1]) for name in known), option
            else:
                assert option in known, option


@pytest.mark.parametrize("page", PAGES, ids=NAMES.values())
def test_classes_and_methods_exist(page: Path) -> None:
    rooms = ("annotator", "datasets", "evaluation", "inference", "model", "util")
    files = [*ROOT.glob("*.py"), *(path for room in rooms for path in (ROOT / room).rglob("*.py"))]
    source = "\n".join(path.read_text() for path in files)
    for code in inline_code(page):
        match = re.fullmatch(r"([A-Z]+[a-z]\w*)(?:\.(\w+))?(?:\(.*\))?", code)
        if match is None or match[1].endswith("Error"):
            continue
        assert re.search(rf"^class {match[1]}\b", source, re.MULTILINE), code
        if match[2]:
            assert re.search(rf"^    def {match[2]}\(|^    {match[2]}:", source, re.MULTILINE), code


def test_the_index_lists_all_pages() -> None:
    linked = set(re.findall(r"\]\(([^)]+)\)", (DOCS / "README.md").read_text()))
    pages = {path.name for path in [*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]}
    assert linked == pages - {"README.md"}


def test_all_figures_are_used() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert not [path.name for path in DOCS.glob("*.png") if path.name not in text]


def test_the_readme_has_at_most_1000_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1000


def test_no_page_is_unfinished() -> None:
    assert not [name for page, name in NAMES.items() if "@@" in page.read_text()]
