"""What a GPU must not cost: rows, draws and put-back without a look at values, tried where there is no GPU."""

import torch

from diffpolicy.policies import Rows
from diffpolicy.policies.draws import Draws, generator_on


def test_rows_without_values_keep_all_entries():
    valid = torch.rand(4, 3, 5, device="meta") < 0.5
    assert Rows(valid.shape, None, valid).count == 60
    assert Rows(valid.shape, 1, valid).count == 60


def test_what_is_put_back_for_invalid_entries_is_zero_or_what_was_there(monkeypatch):
    valid = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    values = torch.arange(60.0).view(4, 3, 5, 1) + 1
    for agent_dim in (None, 1):
        here = Rows(valid.shape, agent_dim, valid)
        packed = here.put(here.take(values))
        with monkeypatch.context() as patch:
            patch.setattr("diffpolicy.policies.rows.readable", lambda x: False)
            there = Rows(valid.shape, agent_dim, valid)
        assert there.count == 60
        assert torch.equal(there.put(there.take(values)), packed)
        assert torch.equal(packed.squeeze(-1), values.squeeze(-1) * valid)
        for rows in (here, there):
            assert torch.equal(
                rows.put_into(values, -rows.take(values)), torch.where(valid.unsqueeze(-1), -values, values)
            )
        assert torch.equal(values.flatten(), torch.arange(60.0) + 1)


def test_a_generator_on_another_device_follows_the_stream():
    cpu, meta = torch.device("cpu"), torch.device("meta")
    draws = Draws(3)
    assert generator_on(draws, cpu) is draws
    assert generator_on(draws, meta) is draws
