"""A policy in front of Ray Serve, as its request router and as an ingress that holds requests, beside Ray's own choice.

Three replicas take 2, 6 and 12 ms a denoising step, one image at a time; all meet the same 200 arrivals.
It needs the extra `ray`, about 1.3 GB of memory and half a minute.
"""

import asyncio
import json
import os
import sys
import time
from importlib.util import find_spec

import numpy as np

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_SERVE_LOG_TO_STDERR="0", RAY_AUTH_MODE="disabled")
if find_spec("ray") is None:
    print("this example needs Ray: pip install 'diffpolicy[ray]'")
    sys.exit()

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from diffpolicy.edge.dispatch import make_held
from diffpolicy.edge.serving import ImageRequest, Service, Settings, WorkerSpec
from diffpolicy.edge.serving.ray_upstream import RayUpstream

STEP_S = (0.002, 0.006, 0.012)
REQUESTS, RATE = 200, 30.0


class Replica:
    """One image at a time, at the speed of its rank, or at that which it is given."""

    def __init__(self, step_s: float | None = None) -> None:
        if step_s is None:
            rank = getattr(serve.get_replica_context(), "rank", 0)
            step_s = STEP_S[int(getattr(rank, "rank", rank) or 0) % len(STEP_S)]
        self.step_s, self.turn = step_s, asyncio.Lock()

    async def __call__(self, body: dict) -> dict:
        async with self.turn:
            await asyncio.sleep(self.step_s * body["num_inference_steps"])
        return {"data": [{"b64_json": ""}], "step_s": self.step_s}


async def play(send) -> dict:
    """The same arrivals for each; the first fifty are not counted, since policies learn from them."""
    generator = np.random.default_rng(0)
    at = np.cumsum(generator.exponential(1 / RATE, REQUESTS))
    steps = generator.choice([5, 10, 20, 30], REQUESTS)
    delays, begun = np.zeros(REQUESTS), time.perf_counter()

    async def one(k: int) -> None:
        await asyncio.sleep(begun + at[k] - time.perf_counter())
        await send(k, {"prompt": "a cat", "size": "512x512", "num_inference_steps": int(steps[k])})
        delays[k] = time.perf_counter() - begun - at[k]

    await asyncio.gather(*(one(k) for k in range(REQUESTS)))
    counted = 1e3 * delays[50:]
    return {"mean_ms": round(float(counted.mean()), 1), "p95_ms": round(float(np.quantile(counted, 0.95)), 1)}


async def main() -> None:
    """Plays all three."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    serve.start(proxy_location="Disabled")
    common = {"max_ongoing_requests": 200, "ray_actor_options": {"num_cpus": 0}}
    router = RequestRouterConfig(
        request_router_class="diffpolicy.edge.serving.ray_router:PolicyRouter",
        request_router_kwargs={"policy": "least-finish", "first_s": 0.1},
    )
    found = {}
    for app_name, name, options in (  # a handle keeps the router of its first app of a name
        ("default", "Ray's power of two", {}),
        ("routed", "PolicyRouter", {"request_router_config": router}),
    ):
        app = serve.deployment(Replica).options(num_replicas=3, **common, **options).bind()
        handle = serve.run(app, name=app_name, route_prefix=None)

        async def send(k, body, handle=handle):
            return await handle.remote(body)

        await send(0, {"num_inference_steps": 1})
        found[name] = await play(send)
        serve.delete(app_name)

    handles = {
        f"http://replica-{j}:1": serve.run(
            serve.deployment(Replica).options(name=f"replica{j}", **common).bind(step_s),
            name=f"app{j}",
            route_prefix=None,
        )
        for j, step_s in enumerate(STEP_S)
    }
    service = Service(
        [WorkerSpec(url) for url in handles],
        lambda spec: RayUpstream(handles[spec.url]),
        make_held("cost-minus-age:age=0.5"),
        settings=Settings(first_s=0.1, lead_s=0.02),  # a call takes Ray some milliseconds
    )
    await service.start()
    found["ingress that holds"] = await play(lambda k, body: service.submit(ImageRequest.parse(body, str(k))).answer())
    await service.stop()
    for name, row in found.items():
        print(name, json.dumps(row))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
