import mainspring as ms
from mainspring.features.describe.personal import columns_read, personal_columns

person = ms.Entity("person", keys={"id": ms.String})
visits = ms.Source(
    "visits",
    schema={"id": ms.String, "name": ms.String, "age": ms.Int64, "fee": ms.Float64},
    event_time="at",
    pii=["name", "age"],
)


@ms.feature_view(entity=person, source=visits)
class Visits:
    n = ms.count(window="1d")
    named = ms.count("name", window="1d")
    oldest = ms.max("age", window="1d")
    adults_paid = ms.sum("fee", window="1d", where=ms.col("age") > 17)
    name = ms.last("name")
    per_year = oldest / n
    doubled = adults_paid * 2


def test_what_a_feature_reads() -> None:
    assert {feature: columns_read(Visits, feature) for feature in Visits.names} == {
        "n": (),
        "named": ("name",),
        "oldest": ("age",),
        "adults_paid": ("age", "fee"),
        "name": ("name",),
        "per_year": ("age",),
        "doubled": ("age", "fee"),
    }


def test_whose_values_tell_of_a_person() -> None:
    """A count of names is not a name, and neither is a sum over whoever a filter lets through."""
    personal = {feature: personal_columns(Visits, feature) for feature in Visits.names}
    assert {feature: columns for feature, columns in personal.items() if columns} == {
        "oldest": ("age",),
        "name": ("name",),
        "per_year": ("age",),
    }
