"""The bank of factors: what is read is what was loaded, a load touches free slots alone, and they come back."""

from __future__ import annotations

import pytest
import torch

from service.errors import Overloaded
from service.models.bank import Bank
from service.models.lora import Factors, Target

CPU = torch.device("cpu")
TARGETS = {
    "query": Target(0, 40, 40, torch.bfloat16),
    "up": Target(1, 40, 100, torch.bfloat16),
    "pooler": Target(2, 40, 40, torch.float32),
}


def factors(seed: int, r: int = 3, names: tuple[str, ...] = ("query", "up", "pooler")) -> dict[str, Factors]:
    torch.manual_seed(seed)
    return {name: Factors(torch.randn(r, TARGETS[name].inputs), torch.randn(r, TARGETS[name].outputs), 0.5) for name in names}


@pytest.mark.parametrize("r", [1, 3, 8, 9])
def test_what_is_read_is_what_was_loaded_scaled_and_padded(r: int) -> None:
    bank, given = Bank(TARGETS, CPU, 20_000), factors(1, r, ("up", "pooler"))
    loaded = bank.load(given)
    assert loaded.table.shape[1] == (8 if r <= 8 else 16) and not loaded.table[0].any()
    assert bank.changed([loaded]).tolist() == [False, True, True]
    for name, pair in given.items():
        target = TARGETS[name]
        for side, (factor, width) in enumerate([(pair.a, target.inputs), (pair.b * 0.5, target.outputs)]):
            slots = torch.from_numpy(loaded.table[target.module, :, side])
            found = bank.read(slots, width, target.kind)
            torch.testing.assert_close(found[:r], factor.to(target.kind), atol=0, rtol=0)
            assert found.shape == (loaded.table.shape[1], width) and not found[r:].any()


def test_a_load_writes_nothing_but_its_own_slots() -> None:
    bank = Bank(TARGETS, CPU, 20_000)
    place, kept = bank.values.data_ptr(), bank.load(factors(1))
    taken = torch.from_numpy(kept.table[kept.table > 0])
    before = bank.values[taken].view(torch.int16)
    others = [bank.load(factors(seed, 2)) for seed in range(2, 6)]
    assert (
        torch.equal(bank.values[taken].view(torch.int16), before) and bank.values.data_ptr() == place and not bank.values[0].any()
    )
    named = [slot for one in (kept, *others) for slot in one.table[one.table > 0].tolist()]
    assert len(set(named)) == len(named)


def test_slots_come_back_with_the_last_reference_and_are_counted() -> None:
    given = factors(1, 2)
    needed = Bank(TARGETS, CPU, 10**5).nbytes(given)
    assert needed == 80 * 2 * (2 + 1 + 3 + 2 + 2)  # of 40 numbers in bfloat16; 100 take three, and float32 twice as many
    bank = Bank(TARGETS, CPU, needed)
    first = bank.load(given)
    with pytest.raises(Overloaded):
        bank.load(given)
    lease = first
    del first
    with pytest.raises(Overloaded):
        bank.load(given)
    del lease
    again = bank.load(factors(2, 2))
    assert (again.table > 0).sum() * 80 == needed
