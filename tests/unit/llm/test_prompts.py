import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.llm.model import Text
from mainspring.llm.prompts import Prompt, PromptAlias, Variable, digest_of

ANSWER = Prompt(
    "answer",
    "Q: {question} in {count}.\n{documents}\n{{question}} {'a': {}} {\"b\": 1}",
    system="Speak {language}.",
    variables={
        "language": Variable(values=("English", "French"), provenance="developer"),
        "count": Variable(type="integer"),
        "documents": Variable(provenance="retrieved", longest=40),
    },
)
VALUES = {"language": "French", "question": "why?", "count": 3, "documents": "x"}


def test_variables_are_parts_with_their_provenance() -> None:
    system, user = ANSWER.render(**VALUES)
    assert (system.role, user.role) == ("system", "user")
    assert system.content == (Text("Speak "), Text("French", {"provenance": "developer"}), Text("."))
    assert user.content == (
        Text("Q: why? in 3.\n"),
        Text("x", {"provenance": "retrieved"}),
        Text("\n{question} {'a': {}} {\"b\": 1}"),
    )


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_value_never_becomes_a_template(question: str, documents: str) -> None:
    made = ANSWER.render(**VALUES | {"question": question, "documents": documents})[1].text
    assert made == f"Q: {question} in 3.\n{documents}\n{{question}} {{'a': {{}}}} {{\"b\": 1}}"


def test_values_that_look_like_templates_stay() -> None:
    trick = "{language} {{count}} {documents.__class__} {0} %s ${x}"
    assert trick in ANSWER.render(**VALUES | {"question": trick})[1].text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"language": "German"}, "'language' has a value that is not permitted"),
        ({"count": "3"}, "'count' is of type str"),
        ({"count": True}, "'count' is of type bool"),
        ({"count": 3.5}, "'count' is of type float"),
        ({"question": None}, "'question' is of type NoneType"),
        ({"documents": "x" * 41}, "'documents' has 41 characters"),
        ({"extra": "x"}, "has no variable 'extra'"),
    ],
)
def test_wrong_values_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ANSWER.render(**VALUES | changed)


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(Invalid, match="needs the variable 'count'"):
        ANSWER.render(language="French", question="x", documents="")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Prompt("a b", "x"), "cannot name a prompt"),
        (lambda: Prompt("a", "x", variables={"y": Variable()}), "'y' of prompt 'a' is in no message"),
        (lambda: Prompt("a", [("tool", "x")]), "A message of prompt 'a'"),
        (lambda: Prompt("a", ["x"]), "A message of prompt 'a'"),
        (lambda: Prompt("a", "{x}", variables={"x": str}), "The variable 'x' of prompt 'a'"),
        (lambda: Variable(type="list"), "the type 'list'"),
        (lambda: Variable(provenance="web"), "the provenance 'web'"),
        (lambda: Variable(longest=0), "is 0"),
    ],
)
def test_wrong_declarations_are_refused(make, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        make()


def test_a_canary_is_for_a_share_of_the_keys_which_grows() -> None:
    def chosen(share: float) -> set[int]:
        alias = PromptAlias(name="a", alias="champion", version=1, canary=2, share=share, moved_at=0, moved_by="ana")
        return {number for number in range(2000) if alias.chosen(f"user-{number}") == 2}

    few, more = chosen(0.1), chosen(0.5)
    assert few < more
    assert 130 < len(few) < 270
    assert 880 < len(more) < 1120
    assert PromptAlias(name="a", alias="b", version=1, moved_at=0, moved_by="ana").chosen("x") == 1


def test_the_digest_is_of_messages_and_variables() -> None:
    def made(text: str = "Say {x}", description: str = "", **variable) -> str:
        return Prompt("a", text, variables={"x": Variable(**variable)}, description=description).digest

    assert made() == made(description="About.")
    assert len({made(), made("Tell {x}"), made(provenance="tool"), made(longest=7), made(type="number")}) == 5
    document = msgspec.json.decode(msgspec.json.encode(ANSWER.document()))
    assert digest_of(document) == ANSWER.digest
