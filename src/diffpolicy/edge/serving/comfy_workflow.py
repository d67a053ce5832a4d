"""`Workflow`: a workflow of ComfyUI into which requests are filled."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffpolicy import _validate as check
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.errors import InputError

ROLES: Mapping[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "prompt": (re.compile("CLIPTextEncode.*"), ("text",)),
    "size": (re.compile("Empty.*Latent.*"), ("width", "height")),
    "steps": (re.compile("KSampler.*|.*Scheduler"), ("steps",)),
    "seed": (re.compile("KSampler.*|RandomNoise"), ("seed", "noise_seed")),
}
"""What a request sets, the classes of nodes that have it, and the inputs that it is: of `size` both, else the first."""
SIZED = re.compile("Flux2Scheduler|ModelSamplingFlux")
"""Nodes whose schedule of noise goes by the size of the image, which therefore follow it."""
LOADERS = ("ckpt_name", "unet_name")
"""Inputs that name a model."""
Node = dict[str, Any]


@dataclass(frozen=True)
class Workflow:
    """A workflow in ComfyUI's API format, and which of its nodes take a request.

    Args:
        graph: node -> `{"class_type": ..., "inputs": {...}}`. nodes: role -> node; `negative` and `size` may be absent.

    Example:
        >>> sampler = {"class_type": "KSampler", "inputs": {"seed": 0, "steps": 20, "positive": ["6", 0]}}
        >>> text = {"class_type": "CLIPTextEncode", "inputs": {"text": ""}}
        >>> Workflow.of({"3": sampler, "6": text}).nodes
        {'prompt': '6', 'steps': '3', 'seed': '3'}
    """

    graph: Mapping[str, Node] = field(repr=False)
    nodes: Mapping[str, str]

    @classmethod
    def read(cls, path: str, named: Mapping[str, str]) -> Workflow:
        """A file that ComfyUI wrote by Workflow > Export (API).

        Args:
            path: of the file. named: role -> node, where it cannot be found or is another one.

        Raises:
            InputError: it is no such file, or a role has no node or several.
        """
        given = check.read_json(Path(path), "workflow")
        try:
            return cls.of(given, named)
        except InputError as error:
            raise InputError(f"workflow {check.show(Path(path).name)} {error}") from None

    @classmethod
    def of(cls, given: Any, named: Mapping[str, str] | None = None) -> Workflow:
        """A workflow from its JSON. Args: given: it. named: see `read`.

        Raises:
            InputError: the end of a sentence about the workflow.
        """
        if isinstance(given, dict) and isinstance(given.get("nodes"), list):
            raise InputError("is the editor's own; ComfyUI writes the one that is needed by Workflow > Export (API)")
        if not isinstance(given, dict) or not given or not all(map(_is_node, given.values())):
            raise InputError("must be an object of nodes with class_type and inputs, as Workflow > Export (API) writes")
        check.known(named or {}, (*ROLES, "negative"), "nodes")
        found = dict(_roles(given, dict(named or {})))
        return cls(given, found)

    @property
    def width(self) -> int | None:
        """Pixels where a request does not say; None where no node tells."""
        return self._told("size", "width")

    @property
    def height(self) -> int | None:
        """Pixels where a request does not say; None where no node tells."""
        return self._told("size", "height")

    @property
    def steps(self) -> int | None:
        """Denoising steps where a request does not say."""
        return self._told("steps", "steps")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that its nodes load."""
        names = (node["inputs"].get(name) for node in self.graph.values() for name in LOADERS)
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))

    def filled(self, request: ImageRequest, seed: int) -> dict[str, Node]:
        """The graph with what a request says; the rest is as it was.

        Args:
            request: of images. seed: of the noise, where the request has none.

        Raises:
            ApiError: with status 400, the workflow has no node for what is asked for.
        """
        graph: dict[str, Node] = copy.deepcopy(dict(self.graph))
        body = request.body
        graph[self.nodes["prompt"]]["inputs"]["text"] = body["prompt"]
        negative = body.get("negative_prompt")
        if negative is not None:
            if "negative" not in self.nodes or not isinstance(negative, str):
                raise _refused("negative_prompt", "is not a string, or the workflow has no node for it")
            graph[self.nodes["negative"]]["inputs"]["text"] = negative
        if request.width is not None and request.height is not None:
            self._need("size", "size")
            size = {"width": request.width, "height": request.height}
            graph[self.nodes["size"]]["inputs"].update(size)
            for node in graph.values():
                if SIZED.fullmatch(node["class_type"]):  # what is linked to another node comes from there
                    own = node["inputs"]
                    own.update({key: told for key, told in size.items() if not isinstance(own.get(key), list)})
        if request.images > 1:
            self._need("size", "n")
            graph[self.nodes["size"]]["inputs"]["batch_size"] = request.images
        if request.steps is not None:
            graph[self.nodes["steps"]]["inputs"]["steps"] = request.steps
        asked = body.get("seed")
        if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or not 0 <= asked < 2**63):
            raise _refused("seed", "must be a whole number from 0")
        inputs = graph[self.nodes["seed"]]["inputs"]
        inputs["seed" if "seed" in inputs else "noise_seed"] = seed if asked is None else asked
        return graph

    def _told(self, role: str, name: str) -> int | None:
        value = self.graph[self.nodes[role]]["inputs"].get(name) if role in self.nodes else None
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def _need(self, role: str, param: str) -> None:
        if role not in self.nodes:
            raise _refused(param, "is fixed in this workflow, which has no node for it")


def _refused(param: str, what: str) -> ApiError:
    return ApiError(400, f"{param} {what}", param=param, code="invalid_value")


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _roles(graph: Mapping[str, Node], named: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each role with its node."""
    for role, node in named.items():
        inputs = ROLES["prompt" if role == "negative" else role][1]
        if node not in graph or not any(name in graph[node]["inputs"] for name in inputs):
            raise InputError(f"has no node {check.show(node)} with {' or '.join(inputs)}, which nodes.{role} names")
        yield role, node
    for role, (kinds, inputs) in ROLES.items():
        if role in named:
            continue
        able = [
            key
            for key, node in graph.items()
            # an input that is linked to another node comes from there
            if kinds.fullmatch(node["class_type"])
            and any(not isinstance(node["inputs"].get(name, []), list) for name in inputs)
        ]
        if role == "prompt" and len(able) > 1:
            able = _texts(graph, "positive") or able
        if len(able) > 1 or (not able and role != "size"):
            what = (
                f"{len(able)} nodes that could take the {role} ({', '.join(able[:8])})" if able else f"no {role} node"
            )
            raise InputError(f'has {what}; name it in the workers file: "nodes": {{"{role}": "..."}}')
        if able:
            yield role, able[0]
    if "negative" not in named:
        prompts, others = _texts(graph, "positive"), _texts(graph, "negative")
        if len(others) == 1 and others != prompts:
            yield "negative", others[0]


def _texts(graph: Mapping[str, Node], side: str) -> list[str]:
    """The text nodes from which a sampler's conditioning comes, over other nodes. Args: side: positive or negative."""
    ahead = [node["inputs"][side] for node in graph.values() if isinstance(node["inputs"].get(side), list)]
    found, seen = [], set()
    while ahead:
        link = ahead.pop()
        key = str(link[0]) if link else ""
        if key in seen or key not in graph:
            continue
        seen.add(key)
        node = graph[key]
        if ROLES["prompt"][0].fullmatch(node["class_type"]):
            found.append(key)
            continue
        # a node that passes both sides on, as one of ControlNet does, passes each on by its name
        names = [side] if side in node["inputs"] else list(node["inputs"])
        ahead += [node["inputs"][name] for name in names if isinstance(node["inputs"][name], list)]
    return found
