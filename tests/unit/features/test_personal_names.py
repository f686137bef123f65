"""Which names of a prediction identify a person."""

import mainspring as ms
from mainspring.features.declaring import on_demand_features, request_features
from mainspring.features.describe.personal import personal_inputs, personal_names
from mainspring.features.model import Observations

person = ms.Entity("person", keys={"email": ms.String})
town = ms.Entity("town", keys={"town": ms.String})
visits = ms.Source(
    "visits",
    schema={"email": ms.String, "town": ms.String, "age": ms.Float32, "spent": ms.Float32},
    event_time="at",
    pii=["email", "age"],
)
sales = ms.Source("sales", schema={"town": ms.String, "sum": ms.Float32}, event_time="at")
asked = ms.Source(
    "asked", schema={"email": ms.String, "town": ms.String, "phone": ms.String}, event_time="at", pii=["phone"]
)


@ms.feature_view(entity=person, source=visits)
class Person:
    visits_1h = ms.count(window="1h")
    ages_1h = ms.distinct("age", window="1h")
    age = ms.last("age")
    spent = ms.last("spent")
    decades = age / 10.0
    double = spent * 2.0


@ms.feature_view(entity=town, source=sales)
class Town:
    sum_1h = ms.sum("sum", window="1h")


@request_features
class Request:
    anonymous = ms.col("phone").is_null()
    hour = ms.col("at").hour()


@on_demand_features
class Together:
    ratio = Person.age / Town.sum_1h
    spent = Person.spent / Town.sum_1h


AT = Observations(asked, keys=[person, town], at=ms.col("at"))


def test_keys_fields_and_features_that_tell_a_marked_value_are_named_and_no_others() -> None:
    assert personal_names([Person, Town, Request, Together], AT) == {
        "email", "phone", "Person.age", "Person.decades", "Request.anonymous", "Together.ratio",
    }  # fmt: skip


def test_a_view_that_is_only_used_counts_too() -> None:
    assert personal_names([Together], AT) == {"email", "phone", "Person.age", "Person.decades", "Together.ratio"}


def test_without_marks_nothing_is_personal() -> None:
    plain = ms.Source("plain", schema={"town": ms.String}, event_time="at")
    assert personal_names([Town], Observations(plain, keys=[town], at=ms.col("at"))) == frozenset()


def test_personal_inputs_are_told_with_their_columns() -> None:
    assert personal_inputs([Person, Town, Request, Together], AT) == {
        "Person.age": ("visits.age",),
        "Person.decades": ("visits.age",),
        "Request.anonymous": ("asked.phone",),
        "Together.ratio": ("visits.age",),
    }
    assert personal_inputs([Together], AT) == {"Together.ratio": ("visits.age",)}
