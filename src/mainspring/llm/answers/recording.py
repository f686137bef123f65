"""Answers in the prediction log: each is a prediction of its chain, so that it is as durable, is erased by its keys and
is encrypted under the keys of its subjects.

Question, passages, prompt and answer are inputs that identify a person. The outputs are numbers: `found` is the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import Node
from mainspring.ledger.model import Asked, Assigned, Prediction, Value
from mainspring.ledger.ports import PredictionLog
from mainspring.ledger.recording import Recorder
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.model import Citation, CitedAnswer, Passage, Question, Reason
from mainspring.llm.model import ChatRequest, Message, Usage

QUESTION, QUERY, PASSAGES = "question", "answer.query", "answer.passages"
_TEXTS = ("query", "reply", "text", "passages", "citations", "request", "conversation", "where")
_FEATURES = tuple(f"answer.{name}" for name in _TEXTS)
_TIMES = ("query_us", "search_us", "reply_us")
_PLAIN = ("answer.index", "answer.prompt", "answer.tenant", "answer.model")


class RecordedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it was logged, with what it takes to make it again.

    Attributes:
        answer: Its passages are without their texts, which are in `request`.
        digest: Of the chain's declaration; see `Answers.digest`.
        request: Request of which `answer.reply` is the reply; `None` where the model was not asked.
        question: Messages before it are there if the chain rewrites; the session is not.
    """

    answer: CitedAnswer
    digest: str
    request: ChatRequest | None
    question: Question


class AnswerLog:
    """Recorder of a chain's answers. Their keys identify a person."""

    def __init__(self, log: PredictionLog, declared: Answers, version: str = "") -> None:
        self._keys = frozenset(declared.keys)
        self._recorder = Recorder(
            log,
            endpoint=declared.name,
            model=declared.model_name,
            version=version or declared.digest[:12],
            digest=declared.digest,
            keys=declared.keys,
            personal=(*declared.keys, QUESTION, *_FEATURES),
            policy=declared.log,
        )

    def check_keys(self, keys: Mapping[str, Value]) -> None:
        """Raise if a caller gives other keys than those that answers are erased by.

        Raises:
            Invalid: A key is unknown, or missing.
        """
        if keys.keys() != self._keys:
            given = f"with the keys {', '.join(sorted(keys))}" if keys else "without a key"
            needed = f"give exactly these: {', '.join(sorted(self._keys))}." if self._keys else "give none."
            raise Invalid(f"A question was asked {given}.", fix=needed)

    def record(
        self, recorded: RecordedAnswer, *, principal: str, request_id: str, assigned: Assigned | None = None
    ) -> list[Future[None]]:
        """Log an answer. The futures are those of `Recorder.record`."""
        answer, request, question = recorded.answer, recorded.request, recorded.question
        bare = [msgspec.structs.replace(each, text="") for each in answer.passages]
        texts: dict[str, str] = {
            "query": answer.query,
            "reply": answer.reply,
            "text": answer.text,
            "passages": _json(bare),
            "citations": _json(answer.citations),
            "request": "" if request is None else _json(request),
            "conversation": _json(question.before),
            "where": "" if question.where is None else _json(question.where),
            "index": answer.index,
            "prompt": answer.prompt,
            "tenant": "" if question.tenant is None else _json(question.tenant),
            "model": answer.model,
        }
        outputs: dict[str, Value] = {
            "found": answer.found,
            "reason": answer.reason,
            "finish": answer.finish,
            "best_score": max((each.nearness for each in answer.passages), default=None),
            "passages": len(answer.passages),
            "left_out": answer.left_out,
            "rerank_failure": answer.rerank_failure,
            "citations": len(answer.citations),
            "unknown_citations": answer.unknown_citations,
            "prompt_tokens": answer.usage.prompt,
            "completion_tokens": answer.usage.completion,
            "cached_tokens": answer.usage.cached,
            "cost_micros": answer.cost_micros,
            **{name: getattr(answer, name) for name in _TIMES},
        }
        return self._recorder.record(
            at=answer.at,
            ids=[answer.id],
            asked=[Asked(principal, answer.latency_us, 1, request_id)],
            sent={name: [value] for name, value in {**question.keys, QUESTION: question.text}.items()},
            features={f"answer.{name}": [value] for name, value in texts.items()},
            outputs={name: [value] for name, value in outputs.items()},
            assigned=[] if assigned is None else [assigned],
        )


def recorded_answer(prediction: Prediction) -> RecordedAnswer:
    """Return the answer of a prediction whose personal values are decrypted.

    Raises:
        Invalid: It is no answer, or its texts were left out or erased.
    """
    features, outputs = prediction.features, prediction.outputs
    lacking = [name for name in (*_FEATURES, *_PLAIN) if name not in features]
    if lacking or QUESTION not in prediction.request:
        gone = not any(name in features for name in _PLAIN)
        raise Invalid(
            f"Prediction {prediction.id} is no answer of a chain." if gone
            else f"The texts of answer {prediction.id} are not in the log: they were left out, or erased."
        )  # fmt: skip
    values = {name.removeprefix("answer."): str(value) for name, value in features.items()}
    answer = CitedAnswer(
        id=prediction.id,
        answers=prediction.endpoint,
        version=prediction.version,
        question=str(prediction.request[QUESTION]),
        text=values["text"],
        found=bool(outputs["found"]),
        reason=msgspec.convert(outputs["reason"], type=Reason),
        citations=msgspec.json.decode(values["citations"], type=tuple[Citation, ...]),
        unknown_citations=_whole(outputs, "unknown_citations"),
        query=values["query"],
        passages=msgspec.json.decode(values["passages"], type=tuple[Passage, ...]),
        left_out=_whole(outputs, "left_out"),
        rerank_failure=str(outputs.get("rerank_failure") or ""),
        index=values["index"],
        model=values["model"],
        prompt=values["prompt"],
        reply=values["reply"],
        finish=str(outputs["finish"]),
        usage=Usage(
            prompt=_whole(outputs, "prompt_tokens"),
            completion=_whole(outputs, "completion_tokens"),
            cached=_whole(outputs, "cached_tokens"),
        ),
        cost_micros=_whole(outputs, "cost_micros"),
        at=prediction.at,
        latency_us=prediction.latency_us,
        **{name: _whole(outputs, name) for name in _TIMES if name in outputs},
    )
    return RecordedAnswer(
        answer=answer,
        digest=prediction.digest,
        request=msgspec.json.decode(values["request"], type=ChatRequest) if values["request"] else None,
        question=Question(
            answer.question,
            before=msgspec.json.decode(values["conversation"], type=tuple[Message, ...]),
            where=msgspec.json.decode(values["where"], type=Node) if values["where"] else None,
            tenant=msgspec.json.decode(values["tenant"], type=str) if values["tenant"] else None,
            keys=prediction.keys,
        ),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _whole(outputs: Mapping[str, Any], name: str) -> int:
    return int(outputs[name] or 0)
