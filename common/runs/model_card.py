"""The model card of a source network that was trained here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.runs.results import Summary
from common.runs.scale import Scale
from common.system.text import printable

MANY = 30  # groups of which only the number is told


@dataclass(frozen=True)
class ModelCard:
    """What is known of a trained source network."""

    file: str  # its weights
    command: str  # that trained it
    config: Mapping[str, Any]  # backbone, data, init, recipe and split, as the run was set up
    held_out: Summary  # of the weights as stored, on the test part
    scale: Scale  # from the network's output to scores
    history: Sequence[Mapping[str, float | None]]  # epoch, loss and validation_srocc of each epoch
    seconds: float  # that training took
    environment: Mapping[str, str | int]  # versions, commit, hardware

    def markdown(self) -> str:
        """Return the card as Markdown."""
        data, recipe, split = (self.config[name] for name in ("data", "recipe", "split"))
        parts = [f"| {name} | {part['images']} | {_groups(part['groups'])} |" for name, part in split.items()]
        best = max(self.history, key=_srocc)
        options = ", ".join(f"{name} {value}" for name, value in recipe.items() if name != "view")
        side = recipe["view"]["size"]
        features, teacher = self.config["features"], self.config["teacher"]
        network = self.config["backbone"] + (f", extractor up to {features}" if features else "")
        lines = [
            f"# {self.file}",
            "",
            f"{network}, trained on {data['dataset']} ({data['score_column']}, {data['direction']}) by",
            "",
            f"    {self.command}",
            "",
            f"On held-out groups: SROCC {self.held_out.source['srocc'].text(4)}, "
            f"PLCC {self.held_out.source['plcc'].text(4)} (mean and standard deviation over "
            f"{len(self.held_out.seeds)} seeds of the view, {self.held_out.n_images} images, "
            "weights as stored).",
            "",
            f"score = {self.scale.mean:.6g} + {self.scale.scale:.6g} x output of the network.",
            "",
            "| part | images | groups |",
            "|---|---|---|",
            *parts,
            "",
            f"- Seed {recipe['seed']}; started from {self.config['init']}; "
            f"best of {len(self.history)} epochs by validation SROCC: "
            f"{best['epoch']} ({best['validation_srocc']:.4f})",
            *([f"- Teacher: {teacher['file']}, sha256 {teacher['sha256'][:16]}"] if teacher else []),
            f"- {self.seconds / 60:.1f} minutes on {self.environment['device']} "
            f"({self.environment['threads']} threads), torch {self.environment['torch']}",
            f"- Recipe: {options}, views {side} x {side}",
            f"- Code: {self.environment.get('commit', 'unknown')}",
            "",
        ]
        return "\n".join(lines)


def _groups(names: Sequence[str]) -> str:
    if len(names) > MANY:
        return f"{len(names):,}"
    return ", ".join(re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", printable(name)) for name in names)


def _srocc(epoch: Mapping[str, float | None]) -> float:
    srocc = epoch["validation_srocc"]
    return -2.0 if srocc is None else srocc
