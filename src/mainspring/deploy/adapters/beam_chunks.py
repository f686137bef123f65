"""Chunks of batch runs in Beam: on Dataflow, on other runners that have a job service, or in this process.

A pipeline has the numbers of chunks, and a function of this module by its name: Beam pickles what it is given, and that
is all it is given. The workers open the project at the path that it has here, read and write the rows, and leave their
answers in a folder.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from mainspring.core.errors import Unavailable
from mainspring.deploy.engines.beam_options import beam_options
from mainspring.serving.batch.plan import shares

_TICK_S = 1.0
_ENDED = set[str]()  # runs of this process whose local workers have to stop


def _answers(entry: str, request: str, run: str, text: str) -> Iterator[str]:
    """Answer for a JSON list of chunks."""
    for answer in import_module(entry).answers(request, json.loads(text)):
        if run in _ENDED:
            return
        yield answer


class BeamChunks:
    """`ChunkEngine` in Beam.

    Args:
        options: As on Beam's command line.
    """

    def __init__(self, options: str) -> None:
        self._options = beam_options(options, os.cpu_count() or 1)

    def run(self, entry: str, request: str, chunks: Sequence[int], per_worker: int) -> Generator[list[str], None, None]:
        run = uuid.uuid4().hex
        parts = shares(chunks, self._options.workers * per_worker)
        with self._folder() as folder:
            place = FileSystems.join(folder, f"mainspring-{run}")
            pipeline = self.pipeline(entry, request, run, parts, FileSystems.join(place, "answers"))
            try:
                yield from _ran(pipeline, run)
                yield _read(place)
                FileSystems.delete([f"{place}/" if "://" in place else place])  # as each kind of folder is named
            except Exception as error:  # of Beam, of its runners, and of what they call
                told = str(error).strip().splitlines() or [""]
                raise Unavailable(
                    f"The chunks in Beam ended by {type(error).__name__}: {told[-1]}",
                    fix="run the same command again: it goes on where it stopped.",
                ) from error

    def _folder(self) -> AbstractContextManager[str]:
        if self._options.local:
            return tempfile.TemporaryDirectory(prefix="mainspring-beam-")
        return nullcontext(self._options.temp)

    def pipeline(
        self, entry: str, request: str, run: str, parts: Sequence[Sequence[int]], answers: str
    ) -> beam.Pipeline:
        """Return the pipeline of a run, which is not started."""
        made = beam.Pipeline(options=PipelineOptions([*self._options.words, f"--job_name=mainspring-{run}"]))
        texts = [json.dumps(list(part)) for part in parts]
        (
            made
            | "Chunks" >> beam.Create(texts)
            | "Spread" >> beam.Reshuffle()
            | "Score" >> beam.FlatMap(partial(_answers, entry, request, run)).with_output_types(str)
            | "Answers" >> beam.io.WriteToText(answers, file_name_suffix=".jsonl")
        )
        return made


def _ran(pipeline: beam.Pipeline, run: str) -> Generator[list[str], None, None]:
    """Run a pipeline to its end; closed before, end it."""
    with ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(pipeline.run)  # which is the whole run where it is local
        try:
            while not wait([submitted], timeout=_TICK_S).done:
                yield []
            result = submitted.result()
            while not PipelineState.is_terminal(result.state):
                time.sleep(_TICK_S)
                yield []
        except GeneratorExit:
            _ENDED.add(run)
            if submitted.exception() is None and not PipelineState.is_terminal(submitted.result().state):
                submitted.result().cancel()
            raise
        finally:
            _ENDED.discard(run)
    if result.state != PipelineState.DONE:
        result.wait_until_finish()  # raises with the reason, if the runner tells one
        raise RuntimeError(f"its state is {result.state}")


def _read(place: str) -> list[str]:
    found = list[str]()
    for match in FileSystems.match([f"{place}/*"]):
        for each in match.metadata_list:
            with FileSystems.open(each.path) as lines:
                found += lines.read().decode().splitlines()
    return found
