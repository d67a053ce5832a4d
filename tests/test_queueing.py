"""The pure functions of the physics: against loops, and by what they must conserve."""

import pytest
import torch

import oracle
from diffpolicy.edge import (
    ServerSpeeds,
    SlotTasks,
    assign_in_order,
    next_queue_gcycles,
    slot_delays_s,
    unloaded_delay_s,
    work_ahead_gcycles,
    work_sent_gcycles,
)

SHAPES = [(), (4,), (2, 3), (2, 1, 3)]
S, K = 5, 17


def draw(batch, seed=0, tasks=K):
    """Tasks, decisions, queues and servers of any batch shape, in float64."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*batch, *shape, generator=g, dtype=torch.float64)

    valid = uniform(tasks) < 0.7
    slot = SlotTasks(
        origin=(uniform(tasks) * (S + 1)).long() - 1,
        input_mbit=2 + 3 * uniform(tasks),
        result_mbit=uniform(tasks),
        work_gcycles=3 * uniform(tasks) * valid,
        valid=valid,
    )
    fleet = ServerSpeeds(1 + 9 * uniform(S), 40 + 10 * uniform(S))
    return slot, (uniform(tasks) * S).long(), 20 * uniform(S), fleet


def rows(batch):
    """Indices of a batch shape; one empty index of the empty shape."""
    return list(torch.cartesian_prod(*(torch.arange(n) for n in batch)).view(-1, len(batch))) if batch else [()]


@pytest.mark.parametrize("batch", SHAPES)
def test_work_ahead_is_what_earlier_tasks_sent_to_the_same_server(batch):
    slot, server, _, _ = draw(batch)
    ahead = work_ahead_gcycles(server, slot.work_gcycles, S)
    assert ahead.shape == (*batch, K)
    for row in rows(batch):
        sent = [0.0] * S
        for k in range(K):
            a = int(server[tuple(row)][k])
            assert float(ahead[tuple(row)][k]) == pytest.approx(sent[a], abs=1e-12)
            sent[a] += float(slot.work_gcycles[tuple(row)][k])


@pytest.mark.parametrize("batch", SHAPES)
def test_delays_and_queues_agree_with_the_loop(batch):
    slot, server, queue, fleet = draw(batch)
    delays = slot_delays_s(server, slot, queue, fleet)
    sent = work_sent_gcycles(server, slot.work_gcycles, S)
    after = next_queue_gcycles(queue, sent, fleet, torch.full((*batch, 1), 0.75, dtype=torch.float64))
    assert delays.shape == (*batch, K)
    assert after.shape == (*batch, S)
    for row in map(tuple, rows(batch)):
        f, v = fleet.capacity_gcycles_per_s[row].tolist(), fleet.rate_mbit_per_s[row].tolist()
        live = queue[row].tolist()
        for k in range(K):
            if not slot.valid[row][k]:
                assert float(delays[row][k]) == 0
                continue
            home, a = int(slot.origin[row][k]), int(server[row][k])
            task = oracle.Task(
                0,
                None if home < 0 else home,
                *(float(x[row][k]) for x in (slot.input_mbit, slot.result_mbit, slot.work_gcycles)),
            )
            assert float(delays[row][k]) == pytest.approx(oracle.delay(task, a, live[a], f, v), abs=1e-12)
            live[a] += task.w
        assert after[row].tolist() == pytest.approx([max(q - 0.75 * x, 0) for q, x in zip(live, f, strict=True)])


def test_all_work_is_sent_somewhere():
    slot, server, _, _ = draw((6,))
    sent = work_sent_gcycles(server, slot.work_gcycles, S)
    torch.testing.assert_close(sent.sum(-1), slot.work_gcycles.sum(-1))


def test_work_is_conserved_while_no_server_runs_dry():
    slot, server, queue, fleet = draw((6,))
    queue = queue + 100
    sent = work_sent_gcycles(server, slot.work_gcycles, S)
    after = next_queue_gcycles(queue, sent, fleet, torch.ones(6, 1, dtype=torch.float64))
    torch.testing.assert_close(after, queue + sent - fleet.capacity_gcycles_per_s)


def test_a_slot_of_length_zero_drains_nothing():
    slot, server, queue, fleet = draw((6,))
    sent = work_sent_gcycles(server, slot.work_gcycles, S)
    after = next_queue_gcycles(queue, sent, fleet, torch.zeros(6, 1, dtype=torch.float64))
    assert torch.equal(after, queue + sent)


def test_queues_do_not_fall_below_zero():
    _, _, queue, fleet = draw((6,))
    nothing = torch.zeros_like(queue)
    assert torch.equal(next_queue_gcycles(queue, nothing, fleet, torch.full((6, 1), 1e6).double()), nothing)


def test_cutting_a_slot_into_rounds_of_length_zero_changes_no_delay():
    slot, server, queue, fleet = draw(())
    whole = slot_delays_s(server, slot, queue, fleet)
    parts = []
    for k in range(K):
        one = SlotTasks(*(getattr(slot, x)[k : k + 1] for x in SlotTasks.__dataclass_fields__))
        parts.append(slot_delays_s(server[k : k + 1], one, queue, fleet))
        queue = queue + work_sent_gcycles(server[k : k + 1], one.work_gcycles, S)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-12, rtol=0)


def test_what_stands_in_invalid_entries_does_not_matter():
    slot, server, queue, fleet = draw((3,))
    noise = torch.where(slot.valid, 0.0, 1e3)
    other = SlotTasks(slot.origin, slot.input_mbit + noise, slot.result_mbit + noise, slot.work_gcycles, slot.valid)
    moved = torch.where(slot.valid, server, (server + 1) % S)
    assert torch.equal(slot_delays_s(moved, other, queue, fleet), slot_delays_s(server, slot, queue, fleet))
    sent = work_sent_gcycles(server, slot.work_gcycles, S)
    assert torch.equal(work_sent_gcycles(moved, slot.work_gcycles, S), sent)


def test_the_batch_rows_do_not_see_each_other():
    slot, server, queue, fleet = draw((4,))
    together = slot_delays_s(server, slot, queue, fleet)
    for e in range(4):
        alone = SlotTasks(*(getattr(slot, x)[e] for x in SlotTasks.__dataclass_fields__))
        own = ServerSpeeds(fleet.capacity_gcycles_per_s[e], fleet.rate_mbit_per_s[e])
        torch.testing.assert_close(slot_delays_s(server[e], alone, queue[e], own), together[e], atol=1e-12, rtol=0)


def test_a_fleet_without_batch_serves_every_row():
    slot, server, queue, _ = draw((4,))
    fleet = ServerSpeeds(torch.rand(S).double() + 1, torch.rand(S).double() + 40)
    tall = ServerSpeeds(fleet.capacity_gcycles_per_s.expand(4, S), fleet.rate_mbit_per_s.expand(4, S))
    assert torch.equal(slot_delays_s(server, slot, queue, fleet), slot_delays_s(server, slot, queue, tall))
    assert torch.equal(unloaded_delay_s(slot, fleet), unloaded_delay_s(slot, tall))


def test_the_unloaded_delay_is_the_delay_with_empty_queues_alone_in_the_slot():
    slot, _, queue, fleet = draw((2, 3))
    unloaded = unloaded_delay_s(slot, fleet)
    assert unloaded.shape == (2, 3, K, S)
    for k in range(K):
        one = SlotTasks(*(getattr(slot, x)[..., k : k + 1] for x in SlotTasks.__dataclass_fields__))
        for a in range(S):
            delay = slot_delays_s(torch.full((2, 3, 1), a), one, torch.zeros_like(queue), fleet)
            torch.testing.assert_close(delay, unloaded[..., k, a : a + 1] * one.valid)


def test_the_servers_may_be_numbered_in_any_order():
    slot, server, queue, fleet = draw((4,))
    new = torch.tensor([3, 0, 4, 1, 2])
    old = new.argsort()
    renamed = SlotTasks(
        torch.where(slot.origin < 0, -1, new[slot.origin.clamp_min(0)]),
        slot.input_mbit,
        slot.result_mbit,
        slot.work_gcycles,
        slot.valid,
    )
    fleet2 = ServerSpeeds(fleet.capacity_gcycles_per_s[:, old], fleet.rate_mbit_per_s[:, old])
    torch.testing.assert_close(
        slot_delays_s(new[server], renamed, queue[:, old], fleet2),
        slot_delays_s(server, slot, queue, fleet),
        atol=1e-12,
        rtol=0,
    )


@pytest.mark.parametrize("batch", SHAPES)
def test_the_scan_shows_each_task_what_the_earlier_ones_left(batch):
    slot, _, queue, fleet = draw(batch)
    seen = []

    def score(k, live):
        seen.append(live.clone())
        return live / fleet.capacity_gcycles_per_s

    server = assign_in_order(score, slot, queue)
    assert server.shape == (*batch, K)
    assert server.dtype == torch.int64
    for k in range(K):
        before = work_sent_gcycles(server[..., :k], slot.work_gcycles[..., :k], S)
        torch.testing.assert_close(seen[k], queue + before, atol=1e-12, rtol=0)
        assert torch.equal(server[..., k], (seen[k] / fleet.capacity_gcycles_per_s).argmin(-1))


def test_the_scan_gives_ties_to_the_lowest_index():
    slot, _, _, _ = draw((4,))
    cost = torch.tensor([2.0, 1.0, 1.0, 3.0, 1.0], dtype=torch.float64).expand(4, S)
    server = assign_in_order(lambda k, q: cost, slot, torch.zeros(4, S, dtype=torch.float64))
    assert (server == 1).all()


def test_the_scan_leaves_its_input_as_it_was():
    slot, _, queue, fleet = draw((4,))
    before = queue.clone(), slot.work_gcycles.clone(), slot.origin.clone()
    assign_in_order(lambda k, q: q / fleet.capacity_gcycles_per_s, slot, queue)
    for now, then in zip((queue, slot.work_gcycles, slot.origin), before, strict=True):
        assert torch.equal(now, then)


def test_a_slot_without_tasks_is_no_special_case():
    slot, server, queue, fleet = draw((2,), tasks=0)
    assert slot_delays_s(server, slot, queue, fleet).shape == (2, 0)
    assert torch.equal(work_sent_gcycles(server, slot.work_gcycles, S), torch.zeros_like(queue))
    assert assign_in_order(lambda k, q: q, slot, queue).shape == (2, 0)


def test_a_task_may_add_to_each_queue_work_of_its_own():
    slot, _, queue, _ = draw((3,))
    own = 4 * torch.rand(3, K, S, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    decided, live = assign_in_order(lambda k, q: q, slot, queue, own), queue.clone()
    for k in range(K):
        server = live.argmin(-1, keepdim=True)
        assert torch.equal(decided[:, k], server.squeeze(-1))
        live.scatter_add_(-1, server, own[:, k].gather(-1, server))
