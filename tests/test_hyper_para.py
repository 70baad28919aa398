from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_memory_bank import POLICIES
from model.methods import METHODS
from util import presets
from util.hyper_para import EvalSettings, TrainSettings
from util.parse_settings import of_method, parse_eval, parse_train
from util.presets import EVAL_PRESETS, EVAL_SCRIPTS, POLICY_OPTIONS, STAGE_PRESETS

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"train": "train.py", **EVAL_SCRIPTS}


def parse_one(argv: list[str]) -> TrainSettings:
    (settings,) = parse_train(argv)
    return settings


def refusal(capsys: pytest.CaptureFixture[str], parse: Callable[[], object]) -> str:
    """What a refused command line says, which must be one line, with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        parse()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def train_refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    return refusal(capsys, lambda: parse_one([*argv]))


def eval_refusal(capsys: pytest.CaptureFixture[str], script: str, *argv: str) -> str:
    return refusal(capsys, lambda: parse_eval(script, [*argv]))


# Where values come from


def test_a_value_comes_from_the_last_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default < method < stage < command line, each of them seen to win over those before."""
    default = TrainSettings()
    method = {"gamma": 0.2, "lr": 0.2, "weight_decay": 0.2}
    monkeypatch.setitem(presets.METHOD_PRESETS, "stcn", method)
    stage = {"lr": 0.3, "weight_decay": 0.3, "steps": [3, 4]}
    monkeypatch.setitem(presets.STAGE_PRESETS, ("stcn", "0"), stage)
    settings = parse_one(["--id", "a", "--weight_decay", "0.4", "--seed", "4"])
    assert settings.batch_size == default.batch_size
    assert settings.gamma == 0.2
    assert settings.lr == 0.3
    assert settings.steps == [3, 4]
    assert settings.weight_decay == 0.4
    assert settings.seed == 4


def test_a_command_line_can_go_back_to_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins even where it says what the default says."""
    monkeypatch.setitem(presets.STAGE_PRESETS, ("stcn", "0"), {"lr": 0.3})
    default = TrainSettings().lr
    assert parse_one(["--id", "a", "--lr", str(default)]).lr == default


def test_published_stage_0() -> None:
    settings = parse_one(["--id", "a"])
    assert (settings.stage, settings.lr, settings.batch_size) == ("0", 1e-5, 8)
    assert (settings.iterations, settings.steps, settings.gamma) == (300_000, [150_000], 0.1)
    assert (settings.start_warm, settings.end_warm) == (20_000, 70_000)
    assert (settings.weight_decay, settings.crop_size) == (1e-7, 384)


def test_settings_share_no_lists() -> None:
    parse_one(["--id", "a"]).steps.append(1)
    TrainSettings().steps.append(1)
    assert parse_one(["--id", "a"]).steps == [150_000]
    assert TrainSettings().steps == [150_000]


def test_roots_are_in_data() -> None:
    assert TrainSettings().static_root == "data/static"
    for script, name in [
        ("davis", "davis_path"), ("davis_2016", "davis_path"), ("youtube", "yv_path"),
        ("generic", "data_path"),
    ]:  # fmt: skip
        value = getattr(parse_eval(script, ["--output", "o"]), name)
        assert value.startswith("data/")


def test_each_eval_script_has_its_presets() -> None:
    for script, preset in EVAL_PRESETS.items():
        settings = parse_eval(script, ["--output", "o"])
        for name, value in preset.items():
            assert getattr(settings, name) == value
    assert parse_eval("youtube", ["--output", "o", "--size", "0"]).size == 0
    assert parse_eval("davis", ["--output", "o"]).size == 0


# The flags of the published READMEs


def test_training_flags() -> None:
    settings = parse_one(
        "--id x --stage 0 --load_network n.pth -b 3 -i 9 --steps 4 5 --lr 0.5 --gamma 0.25 "
        "--start_warm 1 --end_warm 2 --num_workers 0 --no_amp --benchmark --debug "
        "--static_root s".split()
    )
    assert (settings.id, settings.stage, settings.load_network) == ("x", "0", "n.pth")
    assert (settings.batch_size, settings.iterations, settings.steps) == (3, 9, [4, 5])
    assert (settings.lr, settings.gamma) == (0.5, 0.25)
    assert (settings.start_warm, settings.end_warm) == (1, 2)
    assert (settings.num_workers, settings.static_root) == (0, "s")
    assert settings.no_amp
    assert settings.benchmark
    assert settings.debug
    long = parse_one("--id x --batch_size 3 --iterations 9 --load_model m.pth --steps".split())
    assert (long.batch_size, long.iterations, long.load_model) == (3, 9, "m.pth")
    assert long.steps == []
    assert not long.no_amp


def test_evaluation_flags() -> None:
    common = "--model m --output o --top 7 --amp --mem_every 3 --include_last"
    davis = parse_eval("davis", f"{common} --davis_path d --split test-dev".split())
    assert (davis.model, davis.output, davis.davis_path) == ("m", "o", "d")
    assert (davis.split, davis.top, davis.mem_every) == ("test-dev", 7, 3)
    assert davis.amp
    assert davis.include_last
    assert parse_eval("davis_2016", f"{common} --davis_path d".split()).davis_path == "d"
    youtube = parse_eval("youtube", f"{common} --yv_path y --split test --output_all".split())
    assert (youtube.yv_path, youtube.split) == ("y", "test")
    assert youtube.output_all
    generic = parse_eval("generic", f"{common} --data_path g --size 0".split())
    assert (generic.data_path, generic.size) == ("g", 0)


@pytest.mark.parametrize("flag", ["--local_rank=0", "--local-rank=0", "--local_rank 1"])
def test_the_launchers_rank_is_taken(flag: str) -> None:
    settings = parse_one([*flag.split(), "--id", "a"])
    assert settings == parse_one(["--id", "a"])


def test_debug_makes_the_run_talk() -> None:
    quiet, debug = parse_one(["--id", "a"]), parse_one(["--id", "a", "--debug"])
    for name in ("report_interval", "image_interval", "save_interval"):
        assert getattr(debug, name) < getattr(quiet, name)
        asked = parse_one(["--id", "a", "--debug", f"--{name}", "77"])
        assert getattr(asked, name) == 77


# Refusals


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--itertions", "--iterations"),
        ("--batchsize", "--batch_size"),
        ("--batch-size", "--batch_size"),
        ("--static-root", "--static_root"),
        ("--load_netwrok", "--load_network"),
        ("--noamp", "--no_amp"),
        ("--iter", "--iterations"),  # an abbreviation
        ("--no", "--no_amp"),
    ],
)
def test_misspelt_training_flags(
    capsys: pytest.CaptureFixture[str], wrong: str, right: str
) -> None:
    for argv in (["--id", "a", wrong, "3"], ["--id", "a", f"{wrong}=3"]):
        said = train_refusal(capsys, *argv)
        assert f"train.py has no flag {wrong}: did you mean {right}?" in said


@pytest.mark.parametrize(
    ("script", "wrong", "right"),
    [
        ("davis", "--memevery", "--mem_every"),
        ("davis", "--mem-every", "--mem_every"),
        ("davis_2016", "--davispath", "--davis_path"),
        ("youtube", "--ouput_all", "--output_all"),
        ("generic", "--datapath", "--data_path"),
        ("davis", "--include", "--include_last"),  # an abbreviation
    ],
)
def test_misspelt_evaluation_flags(
    capsys: pytest.CaptureFixture[str], script: str, wrong: str, right: str
) -> None:
    said = eval_refusal(capsys, script, "--output", "o", wrong, "3")
    assert f"{EVAL_SCRIPTS[script]} has no flag {wrong}: did you mean {right}?" in said


def test_a_flag_of_another_script_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = train_refusal(capsys, "--id", "a", "--mem_every", "3")
    assert "--mem_every does nothing in train.py; it belongs to eval_davis.py" in said
    assert all(name in said for name in EVAL_SCRIPTS.values())
    said = eval_refusal(capsys, "davis", "--output", "o", "--output_all")
    assert "--output_all does nothing in eval_davis.py; it belongs to eval_youtube.py." in said
    said = eval_refusal(capsys, "youtube", "--output", "o", "-b", "3")
    assert "-b does nothing in eval_youtube.py; it belongs to train.py." in said
    said = eval_refusal(capsys, "generic", "--output", "o", "--split", "val")
    assert "it belongs to eval_davis.py, eval_davis_2016.py, eval_youtube.py." in said
    said = train_refusal(capsys, "--id", "a", "--davispath", "x")
    assert "did you mean --davis_path (of eval_davis.py)?" in said


def test_what_is_no_flag_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = train_refusal(capsys, "--id", "a", "--quux")
    assert "train.py has no flag --quux: see --help" in said
    assert "'out' belongs to no flag" in eval_refusal(capsys, "davis", "out")


@pytest.mark.parametrize("stage", ["4", "30", "00", "x"])
def test_stages_that_are_none(capsys: pytest.CaptureFixture[str], stage: str) -> None:
    said = train_refusal(capsys, "--id", "a", "--stage", stage)
    assert f"--stage {stage} of stcn cannot be trained: there is 0, 1, 2, 3, and any" in said


def test_published_stages() -> None:
    for stage, batch, iterations, steps, last in [
        ("0", 8, 300_000, [150_000], 0.9), ("1", 4, 500_000, [400_000], 0.8),
        ("2", 4, 300_000, [250_000], 0.9), ("3", 4, 150_000, [125_000], 0.9),
    ]:  # fmt: skip
        settings = parse_one(["--id", "a", "--stage", stage])
        assert (settings.batch_size, settings.iterations) == (batch, iterations)
        assert (settings.steps, settings.lr) == (steps, 1e-5)
        assert settings.jumps == [5, 10, 15, 20, 25, 5]
        assert settings.jump_fractions == [0.1, 0.2, 0.3, 0.4, last]


def test_a_recipe_is_a_chain_of_runs() -> None:
    recipe = parse_train("--id r --stage 012 --save_dir s --backbone_weights t.pth -b 2".split())
    assert [settings.id for settings in recipe] == ["r_s0", "r_s01", "r_s012"]
    assert [settings.stage for settings in recipe] == ["0", "1", "2"]
    assert [settings.load_network for settings in recipe] == [
        "", "s/r_s0/r_s0_300000.pth", "s/r_s01/r_s01_500000.pth",
    ]  # fmt: skip
    assert [settings.backbone_weights for settings in recipe] == ["t.pth", "imagenet", "imagenet"]
    assert [settings.batch_size for settings in recipe] == [2, 2, 2]
    first, last = parse_train("--id r --stage 03 --load_network n.pth -i 7".split())
    assert (first.load_network, last.load_network) == ("n.pth", "saves/r_s0/r_s0_7.pth")


def test_flags_of_other_stages_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = train_refusal(capsys, "--id", "a", "--stage", "0", "--yv_root", "y")
    assert "--yv_root does nothing in stage 0, but in 2, 3." in said
    parse_train("--id a --stage 03 --yv_root y --static_root s".split())


def test_flags_of_one_method() -> None:
    """Without --method they choose it, as RDE's published commands need; beside another they are
    refused."""
    settings = parse_one("--id s0 --stage 0 --perturb_max 1 --repeat 0".split())
    assert settings.method == "rde"
    assert (settings.perturb_min, settings.perturb_max) == (0.85, 1)
    assert parse_one(["--id", "s0"]).method == "stcn"
    assert parse_one(["--id", "s0"]).perturb_min is None
    both = "--id a --stage 3 --perturb_min 0.9 --perturb_max 1 --repeat 0".split()
    assert parse_one(both).method == "rde"
    assert parse_one([*both[:-2], "--method", "qdmn"]).method == "qdmn"


def test_davis_jumps_beside_others() -> None:
    sevens = ["7"] * 7
    recipe = parse_train(
        ["--id", "a", "--method", "qdmn", "--stage", "03", "--davis_jumps", *sevens]
    )
    assert recipe[1].davis_jumps == [7] * 7
    settings = parse_one("--id a --method qdmn --stage 3 --jumps 5 9 --jump_fractions 0.5".split())
    assert (settings.jumps, settings.davis_jumps) == ([5, 9], [])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "--id is missing: give the run a name"),
        ("--id a/b", "--id a/b names a folder"),
        ("--id ..", "--id .. names a folder"),
        ("--id a -b 0", "--batch_size must be at least 1"),
        ("--id a -i 0", "--iterations must be at least 1"),
        ("--id a --report_interval 0", "--report_interval must be at least 1"),
        ("--id a --crop_size 40", "--crop_size 40 is no multiple of 16"),
        ("--id a --crop_size 0", "--crop_size 0 is no multiple of 16"),
        ("--id a --num_frames 2", "--num_frames must be at least 3"),
        ("--id a --global_batch -1", "--global_batch must be 0"),
        ("--id a --keep_last 0", "--keep_last must be at least 1"),
        ("--id a --stage 3 --jumps 1 2", "There are 2 --jumps and 5 --jump_fractions"),
        (
            "--id a --stage 3 --jumps 1 0 --jump_fractions 0.5",
            "--jumps and --davis_jumps must be at least 1",
        ),
        ("--id a --stage 3 --jumps 1 2 --jump_fractions 2", "--jump_fractions must rise, from 0"),
        ("--id a --stage 03 --load_model c.pth", "--load_model resumes one stage: with several"),
        ("--id a --num_workers -1", "--num_workers must be 0 or more"),
        ("--id a --seed -1", "--seed must be 0 or more"),
        ("--id a --lr 0", "--lr must be above 0"),
        ("--id a --lr nan", "--lr must be a number from 0 up"),
        ("--id a --lr inf", "--lr must be a number from 0 up"),
        ("--id a --gamma -1", "--gamma must be a number from 0 up"),
        ("--id a --steps -5", "--steps, --milestones and --start_warm count iterations"),
        ("--id a --seed 99999999999999999999999", "--seed must be under 2^63"),
        ("--id a --start_warm 9 --end_warm 8", "--start_warm 9 lies after --end_warm 8"),
        ("--id a --no_amp --precision bfloat16", "--no_amp and --precision bfloat16 contradict"),
        ("--id a --load_network n --load_model m", "--load_network starts a new run and --load_mo"),
        (
            "--id a --load_network n --backbone_weights none",
            "--backbone_weights none does nothing besid",
        ),
        ("--id a --backbone_lr -1", "--backbone_lr must be a number from 0 up"),
        (
            "--id a --method stcn --klloss_weight 3",
            "--klloss_weight does nothing with --method stcn, but with rde",
        ),
        ("--id a --method xmem", "There is no --method xmem: choose from stcn, gsfm, qdmn, rde"),
        (
            "--id a --method rde --perturb_min 0.9 --perturb_max 0.8",
            "--perturb_min 0.9 and --perturb_max 0.8 must rise, from 0 to 1",
        ),
        ("--id a --method qdmn --perturb_min 0.9", "--perturb_max belong together: give both"),
        (
            "--id a --perturb_min 0.9 --perturb_max 1",
            "--perturb_min does nothing with --method stcn, but with rde and qdmn: say which",
        ),
        ("--id a --stage 0 --decoder_f2_weight 3", "--decoder_f2_weight does nothing in stage 0"),
        ("--id a --repeat -1", "--repeat must be 0 or more"),
        ("--id a --klloss_weight nan", "--klloss_weight must be a number from 0 up"),
        ("--id a --stage 3 --davis_jumps 1 2", "There must be as many --davis_jumps as --jumps: 6"),
        ("--id a --lr fast", "invalid float value: 'fast'"),
        ("--id", "expected one argument"),
    ],
)
def test_training_contradictions(
    capsys: pytest.CaptureFixture[str], argv: str, sentence: str
) -> None:
    assert sentence in train_refusal(capsys, *argv.split())


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "--output is missing: give the folder"),
        ("--output o --mem_every -1", "--mem_every must be at least 1"),
        ("--output o --top -2", "--top must be 0 (all rows) or more"),
        ("--output o --amp --precision float32", "--amp and --precision float32 contradict"),
        ("--output o --precision half", "invalid choice: 'half'"),
        ("--output o --mem_half --amp", "--mem_half is for float32"),
        ("--output o --mem_half --precision bfloat16", "--mem_half is for float32"),
        ("--output o --encode_batch -1", "--encode_batch must lie between 0 (as many as pay)"),
        ("--output o --encode_batch 65", "and 64."),
        ("--output o --compile quickly", "invalid choice: 'quickly'"),
    ],
)
def test_evaluation_contradictions(
    capsys: pytest.CaptureFixture[str], argv: str, sentence: str
) -> None:
    for script in EVAL_SCRIPTS:
        assert sentence in eval_refusal(capsys, script, *argv.split())
    said = eval_refusal(capsys, "generic", "--output", "o", "--size", "-1")
    assert "--size must be 0 (the frames' own) or at least 32" in said


def test_what_agrees_is_not_refused() -> None:
    assert parse_one("--id a --no_amp --precision float32".split()).no_amp
    assert parse_one("--id a --start_warm 8 --end_warm 8".split()).end_warm == 8
    assert parse_eval("davis", "--output o --top 0 --amp --precision bfloat16".split()).top == 0


# Help, and no dead knobs


@pytest.mark.parametrize("module", ["train", *(f"eval_{name}" for name in EVAL_SCRIPTS)])
def test_help_names_every_field(capsys: pytest.CaptureFixture[str], module: str) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(module).main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    script = module.removeprefix("eval_")
    owner = TrainSettings if module == "train" else EvalSettings
    for field in dataclasses.fields(owner):
        scripts = field.metadata["only"]
        has_it = module == "train" or not scripts or script in scripts
        assert (f" --{field.name} " in text) == has_it
        if has_it:
            assert field.metadata["help"] in text
    assert "local_rank" not in text


def test_help_tells_what_the_script_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_eval("youtube", ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 480)" in text
    assert "(default: valid)" in text


PARSERS = ("hyper_para.py", "parse_settings.py")
# Where `settings` are a run's; elsewhere they are an eval script's.
TRAINING = {"train.py", "model.py", "start.py", "training_state.py", "curriculum.py"}


def uses_of_settings() -> dict[str, set[str]]:
    """Attributes read of something called `settings`, by the file that reads them."""
    files = [*ROOT.glob("*.py")]
    for room in ("datasets", "model", "util"):
        files += [path for path in (ROOT / room).glob("*.py") if path.name not in PARSERS]
    found: dict[str, set[str]] = {}
    for path in files:
        names = found.setdefault(path.name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            of = node.value
            owner = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
            if owner == "settings":
                names.add(node.attr)
    return found


@pytest.mark.parametrize("owner", [TrainSettings, EvalSettings])
def test_no_knob_is_dead(owner: type) -> None:
    used: set[str] = set()
    for path, names in uses_of_settings().items():
        is_training = path in TRAINING
        used |= names if is_training == (owner is TrainSettings) else set()
    fields = {field.name for field in dataclasses.fields(owner)}
    # Handed on by name: to losses, and to the policies.
    if owner is TrainSettings:
        used |= {name for row in METHODS.values() for name in row.loss_settings}
    else:
        used |= {name for names in POLICY_OPTIONS.values() for name in names}
        used |= {"dataset", "memory", "no_top"}  # read by `of_method`, which is tested below
    # What --debug does is done by the parser: test_debug_makes_the_run_talk.
    assert fields - used <= {"debug"}
    made = {name for name in vars(owner) if isinstance(getattr(owner, name), property)}
    assert used - fields <= made, "something reads a setting that does not exist"


def test_the_knobs_of_a_memory_are_its_fields() -> None:
    assert POLICY_OPTIONS.keys() == POLICIES.keys()
    for memory, names in POLICY_OPTIONS.items():
        own = {field.name for field in dataclasses.fields(POLICIES[memory])}
        assert own - {"compressor"} == {*names}


def test_every_script_of_a_field_is_one() -> None:
    for field in dataclasses.fields(EvalSettings):
        assert set(field.metadata["only"]) <= EVAL_SCRIPTS.keys()
        assert len(field.metadata["help"]) > 10
    assert all((ROOT / name).is_file() for name in SCRIPTS.values())
    for field in dataclasses.fields(TrainSettings):
        assert set(field.metadata["only"]) <= {stage for _, stage in STAGE_PRESETS}
        assert len(field.metadata["help"]) > 10


@pytest.mark.parametrize(
    ("method", "script", "top", "mem_every", "memory"),
    [
        ("stcn", "davis", 20, 5, "every_n"),
        ("gsfm", "davis", 50, 3, "every_n"),
        ("gsfm", "youtube", 50, 3, "every_n"),
        ("qdmn", "davis", 50, 5, "quality"),
        ("rde", "davis", 40, 3, "sam"),
        ("rde", "youtube", 20, 4, "sam"),
        ("imsfr", "davis", 4, 6, "isogenous"),
        ("imsfr", "davis_2016", 12, 6, "isogenous"),
        ("imsfr", "youtube", 20, 3, "isogenous"),
    ],
)
def test_the_method_fills_in_what_the_command_line_leaves_to_it(
    method: str, script: str, top: int, mem_every: int, memory: str
) -> None:
    filled = of_method(parse_eval(script, ["--output", "o"]), method)
    assert (filled.top, filled.mem_every, filled.memory) == (top, mem_every, memory)
    given = of_method(parse_eval(script, "--output o --top 0 --mem_every 7".split()), method)
    assert (given.top, given.mem_every, given.memory) == (0, 7, memory)
    assert of_method(parse_eval(script, "--output o --no_top".split()), method).top == 0


def test_another_memory_does_not_take_the_method_s_numbers() -> None:
    filled = of_method(parse_eval("davis", "--output o --memory every_n".split()), "qdmn")
    assert (filled.memory, filled.mem_capacity, filled.top) == ("every_n", None, 50)
    assert of_method(parse_eval("davis", ["--output", "o"]), "qdmn").mem_capacity == 22
    asked = parse_eval("davis", "--output o --mem_capacity 0".split())
    assert of_method(asked, "qdmn").mem_capacity == 0
    generic = parse_eval("generic", "--output o --dataset youtube".split())
    assert of_method(generic, "rde").mem_every == 4


def test_published_stages_of_the_others() -> None:
    def stage(method: str, number: str) -> TrainSettings:
        return parse_one(["--id", "a", "--method", method, "--stage", number])

    rates = [
        ("qdmn", "0", 2e-5, 14, 160_000), ("qdmn", "1", 1e-5, 8, 250_000),
        ("qdmn", "2", 1e-5, 8, 150_000), ("rde", "0", 2e-5, 16, 75_000),
        ("rde", "1", 1e-5, 4, 500_000), ("rde", "2", 2e-5, 8, 75_000),
        ("rde", "3", 2e-5, 4, 150_000), ("imsfr", "1", 1e-5, 4, 580_000),
        ("imsfr", "2", 1e-5, 4, 680_000),
    ]  # fmt: skip
    for method, number, rate, batch, iterations in rates:
        settings = stage(method, number)
        assert (settings.lr, settings.batch_size) == (rate, batch)
        assert settings.iterations == iterations
    assert stage("qdmn", "2").steps == [70_000]
    assert stage("qdmn", "2").jumps == [5, 10, 15, 20, 25, 10, 5]
    assert stage("qdmn", "2").davis_jumps == [5, 10, 15, 25, 10, 5, 1]
    assert stage("qdmn", "2").jump_fractions == [0.1, 0.2, 0.3, 0.4, 0.7, 0.9]
    assert [stage("rde", n).num_frames for n in "0123"] == [3, 5, 5, 5]
    assert [stage("rde", n).klloss_weight for n in "0123"] == [10, 10, 5, 10]
    assert (stage("rde", "2").start_warm, stage("rde", "2").end_warm) == (5_000, 17_500)


def test_published_stages_of_gsfm() -> None:
    for stage, rate, batch, iterations, step, warm in [
        ("0", 4e-5, 16, 40_000, 20_000, (3_000, 10_000)),
        ("1", 6e-5, 8, 65_000, 50_000, (5_000, 20_000)),
        ("2", 6e-5, 8, 40_000, 30_000, (3_000, 10_000)),
        ("3", 4e-5, 8, 30_000, 25_000, (3_000, 15_000)),
    ]:
        settings = parse_one(["--id", "a", "--method", "gsfm", "--stage", stage])
        assert (settings.lr, settings.batch_size) == (rate, batch)
        assert (settings.iterations, settings.steps) == (iterations, [step])
        assert (settings.start_warm, settings.end_warm) == warm
