"""A whole comparison: the models' studies, times, and all of it as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from bfedge.compare.claims import Beside, beside_papers
from bfedge.compare.sections import Section, model_sections, paper_section, time_section
from bfedge.compare.study import Study, Subject, TestSet, study
from bfedge.compare.torch_times import (
    PAPER_EXPERTS,
    Times,
    device_clock,
    execution_words,
    paper_layers,
    time_subjects,
    trained_layers,
    trained_models,
)
from bfedge.compare.torch_times import Subject as Timed
from bfedge.compare.words import TIME_TEXT
from bfedge.measure.experts import Track


@dataclass(frozen=True)
class TimedCases:
    """Of one layer or one model."""

    of: str
    batch: int
    clock: str
    where: str
    """Device and precision"""
    rounds: int
    cases: list[Times]

    @property
    def text(self) -> str:
        return TIME_TEXT.format(where=self.where, batch=self.batch, clock=self.clock, rounds=self.rounds)


@dataclass
class Comparison:
    subjects: list[Subject]
    test: TestSet | None
    """None without checkpoints"""
    device: torch.device
    track: Track
    studies: list[Study] = field(default_factory=list)
    times: list[TimedCases] = field(default_factory=list)

    def study_models(self) -> None:
        assert self.test
        for subject in self.subjects:
            self.studies.append(study(subject, self.test, self.device, self.track))

    def time_models(self, rounds: int, batch: int) -> None:
        """The first standard mixture of experts, if there is one, is what ratios refer to."""
        assert self.test
        ordered = sorted(self.subjects, key=lambda subject: subject.kind != "standard")
        models = {subject.name: subject.checkpoint.model.to(self.device).eval() for subject in ordered}
        images = torch.from_numpy(self.test.images[:batch]).to(self.device)
        targets = torch.from_numpy(self.test.targets[:batch]).to(self.device)
        self.time("first feed-forward layer of the trained models", trained_layers(models, images), rounds, len(images))
        self.time("whole models", trained_models(models, images, targets), rounds, len(images))

    def time_layers(self, rounds: int, batch: int) -> None:
        for experts in PAPER_EXPERTS:
            layers = paper_layers(experts, batch, self.device)
            self.time(f"untrained layers of the paper's shape, {experts} experts", layers, rounds, batch)

    def time(self, of: str, subjects: list[Timed], rounds: int, batch: int) -> None:
        clock, where = device_clock(self.device), execution_words(subjects[0].config, self.device)
        cases = time_subjects(of, subjects, rounds, self.track, clock)
        self.times.append(TimedCases(of, batch, clock.name, where, rounds, cases))

    @property
    def beside_papers(self) -> list[Beside]:
        return beside_papers(self.studies, [case for timed in self.times for case in timed.cases])

    def sections(self) -> Iterator[Section]:
        if self.studies:
            yield from model_sections(self.studies)
        for timed in self.times:
            yield time_section(timed.cases, timed.text)
        rows = self.beside_papers
        if rows:
            yield paper_section(rows)
