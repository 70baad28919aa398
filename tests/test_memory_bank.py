"""The bank and its policies."""

from __future__ import annotations

import pytest
import torch

from inference.predictor import make_policy
from inference_core import InferenceCore
from inference_memory_bank import (
    POLICIES,
    EveryN,
    IsogenousSampling,
    MemoryPolicy,
    QualityGated,
    SamCompression,
)
from model.features import MemoryEntry, Rows
from model.matching import l2_similarity
from model.memory_bank import MemoryBank
from model.methods import build_network
from model.network import NetworkSpec
from util.hyper_para import EvalSettings
from util.parse_settings import of_method

P, CK, CV = 6, 4, 10


def rows(frame_index: int) -> Rows:
    """A frame's key (1, P, CK) and value (1, P, CV), each number its own."""
    base = 1000 * frame_index
    key = torch.arange(P * CK).view(1, P, CK) + base
    return Rows(key.float(), (torch.arange(P * CV).view(1, P, CV) + base + 500).float())


def entry(frame_index: int, quality: float = 1.0) -> MemoryEntry:
    """The same, as a frame of 2x3 positions and one object."""
    key, value = (t.transpose(1, 2).unflatten(2, (2, 3)) for t in rows(frame_index))
    return MemoryEntry(key, value[:, None], quality=torch.tensor([[quality]]))


def frames_of(bank: MemoryBank) -> list[int]:
    return [slot.frame_index for slot in bank.slots]


def contents(bank: MemoryBank) -> list[int]:
    """Frame indices by what the rows hold, checked to be whole."""
    key, value, *_ = bank.view()
    assert key.shape == (1, P * bank.num_slots, CK)
    assert value.shape == (1, P * bank.num_slots, CV)
    frames = [int(k[0, 0]) // 1000 for k in key[0].split(P)]
    assert torch.equal(key, torch.cat([rows(t)[0] for t in frames], 1))
    assert torch.equal(value, torch.cat([rows(t)[1] for t in frames], 1))
    return frames


def pointers(bank: MemoryBank) -> tuple[int, int]:
    key, value, *_ = bank.view()
    return key.data_ptr(), value.data_ptr()


# --- the bank


def test_a_bank_is_allocated_once_for_its_capacity() -> None:
    bank = MemoryBank(max_slots=5)
    assert bank.bytes_stored == 0
    bank.append(entry(0), 0)
    first = pointers(bank)
    for t in range(1, 5):
        bank.append(entry(t), t)
        assert pointers(bank) == first
        assert bank.bytes_stored == (t + 1) * P * (CK + CV) * 4
    assert contents(bank) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_slots", [1, 3, None])
def test_a_bank_grows_beyond_its_capacity(max_slots: int | None) -> None:
    bank = MemoryBank(max_slots)
    seen = set()
    for t in range(20):
        bank.append(entry(t), t)
        seen.add(pointers(bank))
        assert contents(bank) == [*range(t + 1)]
    assert frames_of(bank) == [*range(20)]
    assert len(seen) <= 6  # it doubles; it does not grow slot by slot


def test_a_view_is_no_copy() -> None:
    bank = MemoryBank(4)
    bank.append(entry(0), 0)
    bank.append(entry(1), 1)
    early = bank.view()
    assert early.key.is_contiguous()
    assert early.value.is_contiguous()
    bank.append(entry(2), 2)
    assert bank.view().key.data_ptr() == early.key.data_ptr()
    early.key[0, 0, 0] = -1
    assert bank.view().key[0, 0, 0] == -1


def test_the_bank_keeps_its_own_copy_keys_in_float32_values_as_they_come() -> None:
    bank = MemoryBank()
    half = entry(0)
    half.key, half.value = half.key.bfloat16(), half.value.bfloat16()
    bank.append(half, 0)
    half.key.zero_()
    view = bank.view()
    assert view.key.dtype == torch.float32
    assert view.value.dtype == torch.bfloat16
    assert view.key.sum() > 0
    assert bank.bytes_stored == P * (CK * 4 + CV * 2)


def test_a_temporary_slot_is_replaced() -> None:
    bank = MemoryBank(max_slots=3)
    bank.append(entry(0), 0)
    first = pointers(bank)
    for t in (1, 2):
        bank.append(entry(t), t, is_temporary=True)
        assert contents(bank) == [0, t]
        assert bank.last_stored == 0
    bank.append(entry(3), 3)
    assert contents(bank) == frames_of(bank) == [0, 3]
    assert bank.last_stored == 3
    bank.append(entry(4), 4, is_temporary=True)
    assert contents(bank) == [0, 3, 4]
    assert bank.last_stored == 3
    assert pointers(bank) == first
    bank.append(entry(5), 5)
    bank.append(entry(6), 6)
    assert contents(bank) == [0, 3, 5, 6]  # grown, without what was temporary


# --- every n


def remember(
    policy: MemoryPolicy, num_frames: int, annotations: tuple[int, ...] = (0,)
) -> tuple[MemoryBank, list[list[int]]]:
    """The bank after a video, and the frames that each frame's read saw."""
    bank = MemoryBank(policy.max_slots(num_frames))
    seen = []
    for t in range(num_frames):
        seen.append(contents(bank) if bank.num_slots else [])
        is_annotation = t in annotations
        if is_annotation or policy.needs(bank, t):
            policy.write(bank, entry(t), t, is_annotation)
    return bank, seen


@pytest.mark.parametrize(
    ("mem_every", "annotations", "stored"),
    [
        (1, (0,), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, (0,), [0, 3, 6, 9]),
        (5, (0,), [0, 5, 10]),
        (100, (0,), [0]),
        (1, (0, 4), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, (0, 4), [0, 3, 4, 7, 10]),  # counted from the last stored, the annotation too
        (5, (0, 4), [0, 4, 9]),
        (5, (0, 5), [0, 5, 10]),
    ],
)
@pytest.mark.parametrize("include_last", [False, True])
def test_which_frames_are_stored(
    mem_every: int, annotations: tuple[int, ...], stored: list[int], include_last: bool
) -> None:
    policy = EveryN(mem_every, include_last)
    bank, seen = remember(policy, 12, annotations)
    temporary = [11] if include_last and stored[-1] != 11 else []
    assert contents(bank) == frames_of(bank) == stored + temporary
    assert bank.last_stored == stored[-1]
    assert contents(bank)[0] == 0  # the first annotation stays
    for t in range(1, 12):
        expected = [s for s in stored if s < t]
        if include_last and t - 1 not in expected:
            expected.append(t - 1)
        assert seen[t] == expected, t


@pytest.mark.parametrize("mem_every", [1, 3, 5])
@pytest.mark.parametrize("include_last", [False, True])
def test_needs_says_whether_write_would_do_anything(mem_every: int, include_last: bool) -> None:
    policy = EveryN(mem_every, include_last)
    bank = MemoryBank()
    policy.write(bank, entry(0), 0, is_annotation=True)
    answers = set()
    for t in range(1, 12):
        is_needed = policy.needs(bank, t)
        before = contents(bank)
        policy.write(bank, entry(t), t)
        assert (contents(bank) != before) == is_needed
        answers.add(is_needed)
    assert answers == ({True} if include_last or mem_every == 1 else {True, False})


@pytest.mark.parametrize("include_last", [False, True])
@pytest.mark.parametrize("mem_every", [1, 2, 3, 5, 7, 50])
def test_max_slots_is_a_tight_upper_bound(mem_every: int, include_last: bool) -> None:
    policy = EveryN(mem_every, include_last)
    for num_frames in range(1, 30):
        bank = MemoryBank()
        policy.write(bank, entry(0), 0, is_annotation=True)
        most = 1
        for t in range(1, num_frames):
            policy.write(bank, entry(t), t)
            most = max(most, bank.num_slots)
        assert most <= policy.max_slots(num_frames) <= most + 1


# --- SAM compression


def join(embedding: MemoryEntry, new: MemoryEntry) -> MemoryEntry:
    """Stands in for the learned one: the mean of keys, the sum of values."""
    return MemoryEntry((embedding.key + new.key) / 2, embedding.value + new.value)


@pytest.mark.parametrize(
    ("mode", "early", "late"),
    [
        ("stm", [0], [0, 3, 6]),
        ("two-frames", [0], [6, 0, 0]),
        ("gt", [0], [0]),
        ("last", [0], [6]),
        ("compress", [0], ["E"]),
        ("gt-compress", [0, 0], ["E", 0]),
        ("last-compress", [0], ["E", 6]),
        ("two-frames-compress", [0, 0], ["E", 6, 0, 0]),
    ],
)
def test_what_each_mode_reads(mode: str, early: list[int], late: list[int | str]) -> None:
    """Before the first update, and after frames 3 and 6."""
    embedding = join(join(entry(0), entry(3)), entry(6)).rows()
    policy, bank = SamCompression(3, mode, join), MemoryBank()
    for t in range(8):
        if t == 0 or policy.needs(bank, t):
            policy.write(bank, entry(t), t, is_annotation=t == 0)
        if t in (2, 7):
            expected = [embedding if f == "E" else rows(int(f)) for f in (early, late)[t > 2]]
            view = policy.view(bank, t)
            assert torch.equal(view.key, torch.cat([key for key, _ in expected], 1))
            assert torch.equal(view.value, torch.cat([value for _, value in expected], 1))
    assert bank.num_slots <= policy.max_slots(8)
    if mode != "stm":
        assert bank.num_slots <= 2


def test_what_sam_remembers_is_of_constant_size() -> None:
    policy, bank = SamCompression(compressor=join), MemoryBank(2)
    sizes = []
    for t in range(0, 300, 3):
        policy.write(bank, entry(t), t, is_annotation=t in (0, 30))
        sizes.append(bank.bytes_stored)
    assert len({*sizes[1:]}) == 1
    assert frames_of(bank) == [0, 297]


def test_policies_that_are_none() -> None:
    with pytest.raises(ValueError, match="There is no mode 'all': choose from stm, two-frames"):
        SamCompression(mode="all", compressor=join)
    for make in (lambda: SamCompression(0, "gt"), lambda: EveryN(0)):
        with pytest.raises(ValueError, match="mem_every must be at least 1"):
            make()


def test_the_method_decides_the_policy() -> None:
    def policy(method: str, **asked: object) -> object:
        network = build_network(NetworkSpec(method, "tiny"))
        return make_policy(network, of_method(EvalSettings(**asked), method))  # type: ignore[arg-type]

    assert policy("stcn") == EveryN(5)
    assert policy("gsfm", mem_every=2, include_last=True) == EveryN(2, include_last=True)
    sam = policy("rde")
    assert isinstance(sam, SamCompression)
    assert (sam.mode, sam.mem_every) == ("two-frames-compress", 3)
    assert policy("rde", mode="gt").mode == "gt"  # type: ignore[attr-defined]
    assert policy("rde", dataset="youtube").mem_every == 4  # type: ignore[attr-defined]
    assert policy("qdmn") == QualityGated(5, mem_capacity=22)
    youtube = QualityGated(5, 0.75, "prediction", mem_capacity=12)
    assert policy("qdmn", dataset="youtube") == youtube
    assert policy("imsfr") == IsogenousSampling(6, sample_keep="1,-5:")
    assert policy("imsfr", dataset="davis_2016") == IsogenousSampling(6, False, 8, 0.1, "0,-2:")
    assert policy("imsfr", dataset="youtube") == IsogenousSampling(3)


@pytest.mark.parametrize("method", ["stcn", "gsfm", "qdmn", "rde", "imsfr"])
@pytest.mark.parametrize("memory", [*POLICIES])
def test_policies_and_methods_cross_where_the_parts_exist(method: str, memory: str) -> None:
    network = build_network(NetworkSpec(method, "tiny")).eval()
    settings = of_method(EvalSettings(memory=memory), method)
    lacking = {"quality": method != "qdmn", "sam": method != "rde"}.get(memory, False)
    if lacking:
        part = {"quality": "a head that scores masks, as qdmn", "sam": "a compressor"}[memory]
        with pytest.raises(ValueError, match=f"--memory {memory} needs {part}.*{method} has none"):
            make_policy(network, settings)
        return
    core = InferenceCore(network, make_policy(network, settings), top_k=4)
    generator = torch.Generator().manual_seed(0)
    for t in range(12):
        frame = torch.randn(3, 32, 48, generator=generator)
        masks = {7: torch.zeros(32, 48).index_fill(1, torch.arange(20), 1)} if t == 0 else None
        prob = core.step(frame, masks, is_last=t == 11)
        assert torch.allclose(prob.sum(0), torch.ones(32, 48), atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "method", "message"),
    [
        ({"mode": "gt"}, "stcn", "--mode does nothing with --memory every_n, which is that of stcn "
         "by default: it belongs to sam"),
        ({"include_last": True}, "rde", "--include_last does nothing with --memory sam"),
        ({"quality_threshold": 0.5}, "imsfr", "--quality_threshold .* it belongs to quality"),
        ({"sample_seed": 3, "memory": "every_n"}, "imsfr", "--sample_seed .* of imsfr here"),
    ],
)  # fmt: skip
def test_settings_that_would_do_nothing(asked: dict, method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_method(EvalSettings(**asked), method)


# --- a cap on all of them


@pytest.mark.parametrize(
    "policy",
    [
        EveryN(1, mem_capacity=4),
        EveryN(2, include_last=True, mem_capacity=4),
        IsogenousSampling(1, True, 2, 0.5, mem_capacity=4),
        QualityGated(1, 0.0, mem_capacity=4),
        SamCompression(1, "stm", mem_capacity=4),
        SamCompression(1, "compress", join, mem_capacity=4),
    ],
)
@pytest.mark.parametrize("annotations", [(0,), (0, 5), (0, 5, 6, 7, 8, 9, 20)])
def test_memory_never_exceeds_its_capacity(
    policy: MemoryPolicy, annotations: tuple[int, ...]
) -> None:
    bank = MemoryBank(policy.max_slots(40), policy.mem_capacity)
    slot, most = P * (CK + CV) * 4, 0
    for t in range(40):
        if t in annotations or policy.needs(bank, t):
            policy.write(bank, entry(t), t, t in annotations)
        assert bank.bytes_stored <= 4 * slot
        most = max(most, bank.num_slots)
        assert contents(bank) == frames_of(bank)
        assert frames_of(bank)[0] == 0, "the first annotation never leaves"
        assert frames_of(bank) == sorted(frames_of(bank))
    # Where a slot is kept for the latest frame, there may be none that is not stored already; SAM
    # has two slots and the embedding.
    assert most == (
        2
        if policy.num_reserved and isinstance(policy, SamCompression)
        else 4 - (policy.num_reserved and policy.mem_every == 1)
    )


def test_what_makes_room() -> None:
    """The oldest frame; annotated ones last."""
    bank, _ = remember(EveryN(1, mem_capacity=4), 6, annotations=(0, 2))
    assert contents(bank) == [0, 2, 4, 5]
    bank, _ = remember(EveryN(1, mem_capacity=3), 6, annotations=(0, 1, 2, 3))
    assert contents(bank) == [0, 3, 5]


def test_too_small_a_capacity() -> None:
    for make in (
        lambda: EveryN(5, mem_capacity=1),
        lambda: EveryN(5, include_last=True, mem_capacity=2),
        lambda: QualityGated(mem_capacity=2),
        lambda: SamCompression(compressor=join, mem_capacity=2),
    ):
        with pytest.raises(ValueError, match=r"mem_capacity \d is too small: .* needs \d frames"):
            make()


# --- quality


def gate(policy: QualityGated, qualities: list[float]) -> tuple[MemoryBank, list[list[int]]]:
    """The bank after frames of these qualities, and what each one's read saw."""
    bank, seen = MemoryBank(), []
    for t, quality in enumerate(qualities):
        seen.append(contents(bank) if bank.num_slots else [])
        assert t == 0 or policy.needs(bank, t)
        policy.write(bank, entry(t, quality), t, is_annotation=t == 0)
    return bank, seen


def test_only_good_frames_stay_and_the_one_before_is_read() -> None:
    policy = QualityGated(mem_every=2, quality_threshold=0.8)
    #        annotated, soon, good, soon, bad, bad, good, soon
    qualities = [0.5, 0.5, 0.45, 0.5, 0.3, 0.39, 0.41, 0.5]
    bank, seen = gate(policy, qualities)
    assert seen[1:] == [[0], [0, 1], [0, 2], [0, 2, 3], [0, 2, 4], [0, 2, 5], [0, 2, 6]]
    assert contents(bank) == [0, 2, 6, 7]
    assert [round(slot.quality, 2) for slot in bank.stored] == [1, 0.9, 0.82]


def test_quality_beside_the_first_prediction() -> None:
    policy = QualityGated(2, 0.75, "prediction")
    bank, _ = gate(policy, [0.9, 0.4, 0.35, 0.4, 0.29])
    assert contents(bank) == [0, 2, 4]  # 4 is the frame before, not stored
    assert bank.last_stored == 2


@pytest.mark.parametrize("reference", ["annotation", "prediction"])
def test_a_score_of_zero(reference: str) -> None:
    """Is not divided by, not stored, and no measure for those after it."""
    bank, _ = gate(QualityGated(1, 0.5, reference), [0.0, 0.0, 0.5, 0.0, 0.4, 0.1, 0.3])
    assert [slot.frame_index for slot in bank.stored] == [0, 2, 4, 6]
    assert all(slot.quality == slot.quality for slot in bank.slots)


def test_who_leaves_a_full_memory() -> None:
    """The least quality + exp(-age); never the annotated frame, whatever its score (the published
    index was one off)."""
    policy = QualityGated(1, 0.5, mem_capacity=5)
    bank, _ = gate(policy, [1, 0.9, 0.6, 0.9, 0.9, 0.9])
    assert [slot.frame_index for slot in bank.stored] == [0, 3, 4, 5]
    bank, _ = gate(policy, [0.1, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert frames_of(bank)[:1] == [0]
    assert 1 not in frames_of(bank), "of equal ones the oldest goes"


# --- isogenous sampling


def test_a_read_sees_a_random_part_and_the_kept_frames() -> None:
    policy = IsogenousSampling(1, sample_from=10, sample_share=0.3, sample_keep="1,-3:")
    bank = MemoryBank()
    counts = dict.fromkeys(range(30), 0)
    for t in range(30):
        policy.write(bank, entry(t), t, t == 0)
        assert (policy.view(bank, t).key.shape[1] == bank.num_slots * P) == (t < 10)
    for t in range(200):
        view = policy.view(bank, t)
        read = [int(k[0, 0]) // 1000 for k in view.key[0].split(P)]
        assert read == sorted({*read})
        assert {1, 27, 28, 29} <= {*read}, "the newest frame is among them"
        assert 9 <= len(read) <= 13
        assert torch.equal(view.value, torch.cat([rows(i)[1] for i in read], 1))
        for i in read:
            counts[i] += 1
    others = [n for i, n in counts.items() if i not in (1, 27, 28, 29)]
    assert 30 < min(others) < max(others) < 95  # each in about 30 % of 200 reads


def test_sampling_is_seeded_and_leaves_storage_alone() -> None:
    def reads(seed: int) -> list[torch.Tensor]:
        policy, bank = IsogenousSampling(1, sample_seed=seed), MemoryBank()
        found = []
        for t in range(20):
            policy.write(bank, entry(t), t, t == 0)
            found.append(policy.view(bank, t).key)
        assert bank.num_slots == 20
        torch.rand(3)  # what else is drawn does not matter
        return found

    same = zip(reads(0), reads(0), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    pairs = zip(reads(0), reads(1), strict=True)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("keep", ["", "x", "1,", "1:2:3", "0.5"])
def test_frames_to_keep_that_are_none(keep: str) -> None:
    with pytest.raises(ValueError, match="no index or slice: write 1 or 0:2 or -5: for example"):
        IsogenousSampling(sample_keep=keep)
    with pytest.raises(ValueError, match=r"sample_share must lie in \(0, 1\]"):
        IsogenousSampling(sample_share=0)
    with pytest.raises(ValueError, match="sample_from and sample_seed must be 0 or more"):
        IsogenousSampling(sample_from=-1)
    for threshold in (float("nan"), -0.1, 50):
        with pytest.raises(ValueError, match=r"quality_threshold must lie in \[0, 1\]"):
            QualityGated(quality_threshold=threshold)


def test_a_bank_with_keys_of_each_object() -> None:
    """Two objects: two sets of rows side by side."""
    bank = MemoryBank(2)
    for t in range(5):
        a, b = entry(t), entry(t + 100)
        bank.append(
            MemoryEntry(torch.stack([a.key, b.key], 1), torch.cat([a.value, b.value], 1)), t
        )
    view = bank.view()
    assert view.key.shape == (2, 5 * P, CK)
    assert view.value.shape == (2, 5 * P, CV)
    for row, start in ((0, 0), (1, 100)):
        assert torch.equal(view.key[row], torch.cat([rows(start + t)[0][0] for t in range(5)]))
        assert torch.equal(view.value[row], torch.cat([rows(start + t)[1][0] for t in range(5)]))
    part = bank.view([1, 4])
    assert torch.equal(part.key[1], torch.cat([rows(101)[0][0], rows(104)[0][0]]))
    assert part.first is not None
    assert torch.equal(part.first.key[1], rows(100)[0][0])


def test_centred_keys_have_the_same_distances_and_lose_less() -> None:
    generator = torch.Generator().manual_seed(0)
    offset = 30 * torch.randn(1, 64, 1, 1, generator=generator)  # what all keys have in common
    bank, plain = MemoryBank(centres_keys=True), MemoryBank()
    for t in range(3):
        key = offset + torch.randn(1, 64, 2, 3, generator=generator)
        frame = MemoryEntry(key, torch.randn(1, 1, 4, 2, 3, generator=generator))
        bank.append(frame, t)
        plain.append(frame, t)
    query = (offset + torch.randn(1, 64, 2, 3, generator=generator)).flatten(2).transpose(1, 2)
    view, other = bank.view(), plain.view()
    assert view.centre is not None
    assert other.centre is None
    distances = (query.double()[:, :, None] - other.key.double()[:, None]).square().sum(-1)
    exact = torch.softmax(-distances / 8, -1)
    errors = [
        (torch.softmax(scores, -1) - exact).abs().max().item()
        for scores in (
            l2_similarity(other.key, query),
            l2_similarity(view.key, query - view.centre),
        )
    ]
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 3
