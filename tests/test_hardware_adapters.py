"""Adapters beyond the common path: checkpoints, loading, memory, and a server that sleeps."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter
from diffpolicy.edge.hardware.adapters.simulated_ import SimulatedAdapter
from diffpolicy.edge.hardware.measuring import devices
from diffpolicy.edge.hardware.models.architectures import architecture
from diffpolicy.edge.hardware.models.building import random_pipeline
from diffpolicy.edge.hardware.models.checkpoints import count_checkpoint, quiet
from diffpolicy.edge.hardware.server_adapter import GenerateRequest, ServerAdapter
from diffpolicy.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny pipeline in a folder, as diffusers writes it."""
    folder = tmp_path_factory.mktemp("weights") / "tiny-checkpoint"
    with quiet():
        random_pipeline(architecture("tiny"), torch.device("cpu"), torch.float32).save_pretrained(folder)
    return folder


def test_a_checkpoint_is_loaded_timed_and_named_without_its_path(checkpoint):
    adapter = DiffusersAdapter(str(checkpoint), device="cpu")
    assert isinstance(adapter, ServerAdapter)
    cold = adapter.start()
    timing = adapter.generate(GenerateRequest("a cat", 64, 64, steps=3, batch=2))
    about = adapter.describe()
    adapter.close()
    assert cold.build_s is None
    assert cold.switch_s == cold.load_s > 0
    assert len(timing.step_s) == 3
    assert timing.total_s >= sum(timing.step_s) + timing.text_s + timing.decode_s
    assert (about.model.name, about.model.weights) == ("tiny-checkpoint", "checkpoint")
    assert about.model.text_encoders == ("text_encoder", "text_encoder_2")
    assert str(checkpoint.parent) not in json.dumps([part.to_dict() for part in (about.server, about.model)])
    assert adapter.step_flops(64, 64, 1) is None


def test_weights_are_counted_without_being_read(checkpoint):
    counts = count_checkpoint(str(checkpoint))
    assert set(counts) == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    assert counts["vae"] == 17_735


def test_t5_that_a_checkpoint_does_not_have_is_refused(checkpoint):
    with pytest.raises(InputError, match="tiny-checkpoint has no T5 text encoder"):
        DiffusersAdapter(str(checkpoint), device="cpu", t5=True).start()
    with pytest.raises(InputError, match="model tiny has no T5"):
        DiffusersAdapter("tiny", device="cpu", t5=True)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no model_index\.json"):
        DiffusersAdapter(str(tmp_path), device="cpu")


def test_random_weights_can_be_written_and_loaded_to_time_it():
    adapter = DiffusersAdapter("tiny", device="cpu", measure_load=True)
    cold = adapter.start()
    assert cold.build_s > 0
    assert cold.switch_s == cold.load_s > 0
    assert adapter.generate(GenerateRequest("a cat", 64, 64, steps=1)).total_s > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("offload", [False, True])
def test_a_gpu_is_timed_by_events_and_its_memory_is_measured(offload):
    adapter = DiffusersAdapter("tiny", device="cuda:0", offload_encoders=offload)
    adapter.start()
    request = GenerateRequest("a cat", 64, 64, steps=4)
    adapter.generate(request)
    timing = adapter.generate(request)
    assert len(timing.step_s) == 4
    assert 0 < sum(timing.step_s) <= timing.total_s
    assert timing.peak_bytes > 0


def test_a_size_that_the_model_cannot_do_is_refused_and_leaves_no_hooks():
    adapter = DiffusersAdapter("tiny", device="cpu")
    adapter.start()
    with pytest.raises(InputError, match="model tiny refuses 65x64 with 2 steps"):
        adapter.generate(GenerateRequest("a cat", 65, 64, steps=2))
    pipeline = adapter._pipeline
    assert "encode_prompt" not in vars(pipeline)
    assert "decode" not in vars(pipeline.vae)
    assert not pipeline.transformer._forward_pre_hooks


def test_a_model_that_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(devices, "free_bytes", lambda device: 2**30)
    with pytest.raises(InputError, match=r"sd3-medium needs 10\.9 GiB for its weights, but cpu has 1\.0 GiB free"):
        DiffusersAdapter("sd3-medium", device="cpu").start()


def test_a_simulated_server_sleeps_as_long_as_it_says_one_call_at_a_time():
    server = SimulatedAdapter("tiny-cpu", sleep=True, scatter_sigma=0.0)
    request = GenerateRequest("", 64, 64, steps=4)
    expected = server.profile.service_s(64, 64, 4)
    begun = time.perf_counter()
    with ThreadPoolExecutor(3) as pool:
        longest = max(call.result().total_s for call in [pool.submit(server.generate, request) for _ in range(3)])
    assert time.perf_counter() - begun >= 3 * expected
    assert longest > 2 * expected  # the last one waited for two others


def test_a_simulated_server_is_the_same_for_the_same_seed():
    def times(seed):
        server = SimulatedAdapter("tiny-cpu", scatter_sigma=0.2, seed=seed)
        return [server.generate(GenerateRequest("", 64, 64, steps=4)).total_s for _ in range(5)]

    assert times(1) == times(1) != times(2)
