"""What `replay` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffpolicy._text_table import render

if TYPE_CHECKING:
    from diffpolicy.edge.evaluation import Replay


def replay_table(replay: Replay) -> str:
    """What `replay` prints."""
    data = replay.to_dict()
    title = f"{replay.scenario}: {data['tasks']} tasks under {replay.policy}, load {replay.load:.2f}"
    names = ("mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "max_delay_s")
    if "order" in data:
        dead = f", dead time {data['dead_share']:.1%}" if data["dead_share"] else ""
        title += f", held in the order {data['order']} (most passes {data['most_passes']}{dead})"
        title += ", image by image" * data["split"]
    table = render(title, ["mean s", "p50", "p95", "p99", "max"], [[f"{data[name]:.4f}" for name in names]])
    return "\n".join([table, *data.get("warnings", [])])
