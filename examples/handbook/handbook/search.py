"""Pages as a collection, questions that measure its search, and answers that cite it."""

import mainspring as ms

pages = ms.Source(
    "pages",
    schema={"path": ms.String, "part": ms.String, "title": ms.String, "text": ms.String},
    event_time="changed_at",
)

questions = ms.Source(
    "questions",
    schema={"question": ms.String, "page": ms.String, "kind": ms.String},
    event_time="asked_at",
)

questions_set = ms.EvaluationSet("questions", source=questions, query="question", relevant="page", tags=["kind"])

handbook = ms.Collection(
    "handbook",
    source=pages,
    text="text",
    key="path",
    chunk=ms.chunks.markdown(tokens=200, overlap=20),
    encoder=ms.Encoder("minilm"),
    fields=["part", "title"],
    words=True,
    evaluation=questions_set,
    gates=[ms.at_least("recall@10", 0.6)],
    description="Mainspring's tutorials, how-to guides and explanations.",
)

# Without model=, answers quote their sources. A language model of your own is an ms.LanguageModel.
ms.Answers("handbook", retriever=ms.Retriever("handbook", collection=handbook, k=8, min_score=0.3))
