"""Wrong options: each is refused in one line that names it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from util.hyper_para import TrainSettings
from util.parse_settings import parse_eval, parse_train
from util.presets import EVAL_SCRIPTS


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


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--itertions", "--iterations"),
        ("--batchsize", "--batch_size"),
        ("--batch-size", "--batch_size"),
        ("--static-root", "--static_root"),
        ("--load_netwrok", "--load_network"),
        ("--noamp", "--no_amp"),
        ("--iter", "--iterations"),  # a prefix
        ("--no", "--no_amp"),
    ],
)
def test_misspelt_training_flags(
    capsys: pytest.CaptureFixture[str], wrong: str, right: str
) -> None:
    for argv in (["--id", "a", wrong, "3"], ["--id", "a", f"{wrong}=3"]):
        said = train_refusal(capsys, *argv)
        assert f"train.py has no option {wrong}: did you mean {right}?" in said


@pytest.mark.parametrize(
    ("script", "wrong", "right"),
    [
        ("davis", "--memevery", "--mem_every"),
        ("davis", "--mem-every", "--mem_every"),
        ("davis_2016", "--davispath", "--davis_path"),
        ("youtube", "--ouput_all", "--output_all"),
        ("generic", "--datapath", "--data_path"),
        ("davis", "--include", "--include_last"),  # a prefix
    ],
)
def test_misspelt_evaluation_flags(
    capsys: pytest.CaptureFixture[str], script: str, wrong: str, right: str
) -> None:
    said = eval_refusal(capsys, script, "--output", "o", wrong, "3")
    assert f"{EVAL_SCRIPTS[script]} has no option {wrong}: did you mean {right}?" in said


def test_a_flag_of_another_script_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = train_refusal(capsys, "--id", "a", "--mem_every", "3")
    assert "--mem_every does nothing in train.py; it is an option of eval_davis.py" in said
    assert all(name in said for name in EVAL_SCRIPTS.values())
    said = eval_refusal(capsys, "davis", "--output", "o", "--output_all")
    assert "--output_all does nothing in eval_davis.py; it is an option of eval_youtube.py." in said
    said = eval_refusal(capsys, "youtube", "--output", "o", "-b", "3")
    assert "-b does nothing in eval_youtube.py; it is an option of train.py." in said
    said = eval_refusal(capsys, "generic", "--output", "o", "--split", "val")
    assert "it is an option of eval_davis.py, eval_davis_2016.py, eval_youtube.py." in said
    said = train_refusal(capsys, "--id", "a", "--davispath", "x")
    assert "did you mean --davis_path (of eval_davis.py)?" in said


def test_what_is_no_flag_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = train_refusal(capsys, "--id", "a", "--quux")
    assert "train.py has no option --quux: see --help" in said
    assert "'out' belongs to no option" in eval_refusal(capsys, "davis", "out")


@pytest.mark.parametrize("stage", ["4", "30", "00", "x"])
def test_stages_that_are_none(capsys: pytest.CaptureFixture[str], stage: str) -> None:
    said = train_refusal(capsys, "--id", "a", "--stage", stage)
    assert f"--stage {stage} of stcn cannot be trained: choose from 0, 1, 2, 3, or several" in said


def test_flags_of_other_stages_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = train_refusal(capsys, "--id", "a", "--stage", "0", "--yv_root", "y")
    assert "--yv_root does nothing in stage 0, only in 2, 3." in said
    parse_train("--id a --stage 03 --yv_root y --static_root s".split())


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "--id is missing: name the run"),
        ("--id a/b", "--id a/b becomes a folder"),
        ("--id ..", "--id .. becomes a folder"),
        ("--id a -b 0", "--batch_size must be at least 1"),
        ("--id a -i 0", "--iterations must be at least 1"),
        ("--id a --report_interval 0", "--report_interval must be at least 1"),
        ("--id a --crop_size 40", "--crop_size 40 is not a multiple of 16"),
        ("--id a --crop_size 0", "--crop_size 0 is not a multiple of 16"),
        ("--id a --num_frames 2", "--num_frames must be at least 3"),
        ("--id a --global_batch -1", "--global_batch must be 0"),
        ("--id a --keep_last 0", "--keep_last must be at least 1"),
        ("--id a --stage 3 --jumps 1 2", "There are 2 --jumps and 5 --jump_fractions"),
        (
            "--id a --stage 3 --jumps 1 0 --jump_fractions 0.5",
            "--jumps and --davis_jumps must be at least 1",
        ),
        (
            "--id a --stage 3 --jumps 1 2 --jump_fractions 2",
            "--jump_fractions must increase, from 0",
        ),
        ("--id a --stage 03 --load_model c.pth", "--load_model resumes one stage: with several"),
        ("--id a --num_workers -1", "--num_workers must be 0 or more"),
        ("--id a --seed -1", "--seed must be from 0 to 2^63 - 1"),
        ("--id a --static_objects 3", "--static_objects must be 1 or 2"),
        ("--id a --stage 3 --static_objects 2", "--static_objects"),
        ("--id a --stage 3 --paste_share 1.5", "--paste_share must be from 0 to 1"),
        ("--id a --paste_share 0.5", "--paste_share"),
        ("--id a --stage 3 --static_share 1", "--static_share must be from 0 to below 1"),
        ("--id a --frozen_layers 4", "--frozen_layers must be from 0"),
        ("--id a --stage 3 --davis_root none --yv_root none", "leave no data: give one of the"),
        ("--id a --lr 0", "--lr must be above 0"),
        ("--id a --lr nan", "--lr must be a finite number, 0 or more"),
        ("--id a --lr inf", "--lr must be a finite number, 0 or more"),
        ("--id a --gamma -1", "--gamma must be a finite number, 0 or more"),
        ("--id a --steps -5", "--steps, --milestones and --start_warm are iterations"),
        ("--id a --seed 99999999999999999999999", "--seed must be from 0 to 2^63 - 1"),
        ("--id a --start_warm 9 --end_warm 8", "--start_warm 9 is later than --end_warm 8"),
        ("--id a --no_amp --precision bfloat16", "--no_amp and --precision bfloat16 contradict"),
        ("--id a --load_network n --load_model m", "--load_network starts a new run and --load_mo"),
        (
            "--id a --load_network n --backbone_weights none",
            "--backbone_weights none has no effect with",
        ),
        ("--id a --backbone_lr -1", "--backbone_lr must be a finite number, 0 or more"),
        (
            "--id a --method stcn --klloss_weight 3",
            "--klloss_weight does nothing with --method stcn, only with rde",
        ),
        ("--id a --method xmem", "There is no --method xmem: choose from stcn, gsfm, qdmn, rde"),
        (
            "--id a --method rde --perturb_min 0.9 --perturb_max 0.8",
            "--perturb_min 0.9 and --perturb_max 0.8 must increase, from 0 to 1",
        ),
        ("--id a --method qdmn --perturb_min 0.9", "--perturb_max belong together: give both"),
        (
            "--id a --perturb_min 0.9 --perturb_max 1",
            "--perturb_min does nothing with --method stcn, only with rde and qdmn: choose one",
        ),
        ("--id a --repeat -1", "--repeat must be 0 or more"),
        ("--id a --klloss_weight nan", "--klloss_weight must be a finite number, 0 or more"),
        (
            "--id a --stage 3 --davis_jumps 1 2",
            "--davis_jumps must have as many values as --jumps (6)",
        ),
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
        ("--output o --mem_every 0", "--mem_every must be at least 1"),
        ("--output o --top -1", "--top must be 0 (all rows) or more"),
        ("--output o --amp --precision float32", "--amp and --precision float32 contradict"),
        ("--output o --precision half", "invalid choice: 'half'"),
        ("--output o --mem_half --amp", "--mem_half needs float32"),
        ("--output o --mem_half --precision bfloat16", "--mem_half needs float32"),
        ("--output o --encode_batch -1", "--encode_batch must be from 0 (automatic)"),
        ("--output o --encode_batch 65", "to 64."),
        ("--output o --compile quickly", "invalid choice: 'quickly'"),
    ],
)
def test_evaluation_contradictions(
    capsys: pytest.CaptureFixture[str], argv: str, sentence: str
) -> None:
    for script in EVAL_SCRIPTS:
        assert sentence in eval_refusal(capsys, script, *argv.split())
    said = eval_refusal(capsys, "generic", "--output", "o", "--size", "-1")
    assert "--size must be 0 (native) or at least 32" in said


def test_what_agrees_is_not_refused() -> None:
    assert parse_one("--id a --no_amp --precision float32".split()).no_amp
    assert parse_one("--id a --start_warm 8 --end_warm 8".split()).end_warm == 8
    assert parse_eval("davis", "--output o --top 0 --amp --precision bfloat16".split()).top == 0
