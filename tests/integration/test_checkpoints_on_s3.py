"""Checkpoints in a bucket: of one process and of several, and of two trainings that want the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore
import pytest

from kit import ranks
from kit.later import later
from kit.object_store import s3_server, s3_url
from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.settings import Url
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.objects import ObjectShelf
from mainspring.training.loop.signals import Interrupted

__all__ = ["s3_server", "s3_url"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

torch = later("torch")
cases = later("kit.sharded_cases")
parallel_cases = later("kit.parallel_cases")


def made(step: int, score: float | None = None) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((3,), float(step)), "note": [step]}, score)


def opened(url: Url) -> ObjectShelf:
    return ObjectShelf(url.text, "abc")


def test_the_newest_whole_one_comes_back_and_old_ones_go(s3_url: Url) -> None:
    shelf = opened(s3_url)
    kept = Checkpoints(shelf, keep=2)
    with kept.hold():
        assert kept.newest() is None
        for step, score in ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)):
            kept.write(made(step, score))
        assert kept.steps() == [1, 3, 4]
        content = bytearray(obstore.get(shelf._store, "000000000004.safetensors").bytes())
        content[-40] ^= 1
        obstore.put(shelf._store, "000000000004.safetensors", bytes(content))
        with pytest.warns(RuntimeWarning, match=r"0004.*The previous checkpoint is used"):
            found = Checkpoints(opened(s3_url)).newest()
        assert found is not None
        assert (found.step, found.state["note"], found.state["w"].tolist()) == (3, [3], [3.0] * 3)
        assert "000000000004.corrupt" in shelf.names()
        kept.clear()
    assert kept.steps() == []


def test_who_was_taken_over_stores_no_more(s3_url: Url) -> None:
    first, second = (Checkpoints(opened(s3_url)) for _ in range(2))
    with first.hold():
        first.write(made(1))
        with second.hold():  # as after a kill of the first
            second.write(made(2))
            with pytest.raises(Conflict, match=r"Another training uses the checkpoints in s3://.*/abc"):
                first.write(made(3))
            second.write(made(4))
            assert second.steps() == [1, 2, 4]


def test_a_training_resumes_from_the_bucket_bit_for_bit(s3_url: Url) -> None:
    def trained(at: int | None, checkpoints: str | None) -> Any:
        torch.manual_seed(3)
        module = parallel_cases.Stopping(at)
        adam = torch.optim.Adam(module.parameters(), lr=0.05)
        rows = parallel_cases.ROWS.float(), parallel_cases.TARGETS.float()
        fit_torch(module, rows, torch.nn.functional.binary_cross_entropy, optimiser=adam, epochs=4, batch_size=16,
                  seed=5, checkpoints=checkpoints)  # fmt: skip
        return module.state_dict()

    undisturbed = trained(None, None)
    with pytest.raises(Interrupted, match=r"the checkpoint s3://.*/[0-9a-f]{16}/000000000007\.safetensors is written"):
        trained(7, s3_url.text)
    assert all(torch.equal(each, undisturbed[name]) for name, each in trained(None, s3_url.text).items())


def test_ranks_store_their_parts_and_read_them(s3_url: Url, tmp_path: Path) -> None:
    (tmp_path / "address").write_text(s3_url.text)
    commands = ["write:1:shards", "read:columns:1", "write:2:shards"]
    status, said = ranks.run(Path(ranks.__file__).with_name("sharded_cases.py"), 2, tmp_path, commands)
    assert status == 0, said
    shelf = ObjectShelf(s3_url.text, "ranks")
    assert len([name for name in shelf.names() if name.endswith(".safetensors")]) == 6
    found = cases.take_apart(Checkpoints(shelf).read(2).state)[1]
    assert all(torch.equal(each, found[name]) for name, each in cases.take_apart(cases.whole(2))[1].items())


def test_what_cannot_be_a_place_is_refused(s3_url: Url) -> None:
    with pytest.raises(Invalid, match="Checkpoints cannot lie at ftp://"):
        ObjectShelf("ftp://host/folder", "abc")
    with pytest.raises(Invalid, match="without encryption"):
        ObjectShelf("s3://bucket/prefix?endpoint=http://elsewhere.example", "abc")
    other = s3_url.text.replace("bundles-", "nobody-")
    with pytest.raises(NotFound, match="There is no bucket"), Checkpoints(ObjectShelf(other, "abc")).hold():
        pass
