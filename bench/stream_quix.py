"""Quix Streams' side of bench/stream.py, run by the Python of its own environment. Arguments: a broker, messages."""

from __future__ import annotations

import json
import resource
import sys
import tempfile

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Latest, Sum
from quixstreams.models.topics import TopicConfig
from quixstreams.models.topics.manager import TopicManager

HOUR_MS = 3_600_000


def main() -> None:
    # It asks the broker for the topic's retention, which one in memory has not.
    TopicManager.derive_topic_config = classmethod(lambda _, topics: TopicConfig(len(topics), 1))
    broker, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker, consumer_group="bench", auto_offset_reset="earliest", state_dir=folder, use_changelog_topics=False,
            loglevel="ERROR",
        )  # fmt: skip
        topic = app.topic("payments", key_deserializer="str", value_deserializer="json")
        app.dataframe(topic).tumbling_window(HOUR_MS).agg(
            payments=Count(), spent=Sum("amount"), last=Latest("amount")
        ).current()
        begun = resource.getrusage(resource.RUSAGE_SELF)
        app.run(count=count, timeout=60.0, collect=False)
        ended = resource.getrusage(resource.RUSAGE_SELF)
    used = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    print(json.dumps({"rate": count / used}))


if __name__ == "__main__":
    main()
