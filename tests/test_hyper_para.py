"""Values of options: precedence, published values of methods and stages."""

from __future__ import annotations

import pytest

from util import presets
from util.hyper_para import TrainSettings
from util.parse_settings import of_method, parse_eval, parse_train
from util.presets import EVAL_PRESETS


def parse_one(argv: list[str]) -> TrainSettings:
    (settings,) = parse_train(argv)
    return settings


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
