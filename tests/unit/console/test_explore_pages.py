"""The pages of features and data: what they say, what they refuse, and what they do where something is missing."""

import re
from dataclasses import replace

import pytest

import mainspring as ms
from kit.console.client import Client
from kit.console.flights import Project, declared
from kit.console.shop import NOW, Orders, buyer, definitions, landed, orders, rows, shop
from mainspring.console.app import create_app
from mainspring.console.background_cache import Looking
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.time import DAY, HOUR
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.model import DatasetCommit
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.registry.adapters.memory import MemoryVersions
from unit.console.test_pages import HOSTILE, Markup, text_of

PAGES = (
    "/features",
    "/features/Orders",
    "/features/Returns",
    "/data",
    "/data/orders",
    "/data/returns",
    "/data/commits",
)


@pytest.fixture(scope="module")
def here():
    return shop()


@pytest.fixture(scope="module")
def client(here) -> Client:
    return Client(create_app(here), here.key())


def shown(project: Project, path: str, status: int = 200) -> str:
    answer = Client(create_app(project), project.key()).page(path)
    assert answer.status_code == status
    return text_of(answer.text)


class TestFeatures:
    def test_every_view_with_what_it_is_of(self, client) -> None:
        text = text_of(client.page("/features").text)
        assert (
            "Orders What a buyer ordered lately. tier=gold buyer country, number orders growth 9 fraud Materialised"
            in text
        )
        assert "10 min behind now" in text
        assert "Returns What a buyer sent back." in text
        assert "No data run mainspring ingest returns" in text
        assert "Basket The basket, beside what was bought before. share value / Orders.spent_7d" in text
        assert "used by fraud; reads Orders" in text

    def test_a_search_finds_by_feature_and_says_which(self, client) -> None:
        page = client.page("/features?q=amount").text
        assert "1 of 2" in text_of(page)
        assert 'href="/features/Orders?feature=spent_7d#over-time"' in page
        assert "Returns" not in text_of(page)
        assert 'value="amount"' in page

    def test_by_owner(self, client) -> None:
        page = client.page("/features?owner=growth").text
        assert '<option value="growth" selected>' in page
        assert "1 of 2" in text_of(page)
        assert "No results" in text_of(client.page("/features?owner=nobody").text)

    def test_a_search_is_cut_and_stays_text(self, client) -> None:
        answer = client.page("/features?q=" + "%3Cb%3E" * 500)
        assert answer.status_code == 200
        assert "<b>" not in answer.text
        assert len(answer.text) < 20_000

    def test_no_view(self) -> None:
        text = shown(Project(definitions=declared()), "/features")
        assert "No feature view is declared yet" in text
        assert "mainspring apply" in text


@pytest.fixture(scope="module")
def orders_page(client) -> str:
    return client.page("/features/Orders").text


def test_what_is_computed_on_demand_is_found_by_its_name(client) -> None:
    answer = client("GET", "/features/Basket", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/features#Basket")
    assert 'id="Basket"' in client.page("/features").text


def test_a_search_as_json_is_the_same_search(client) -> None:
    (linked,) = re.findall(r'As JSON: <a href="([^"]+)"', client.page("/features?q=returns").text)
    assert [view["name"] for view in client.get(linked).json()["views"]] == ["Returns"]


class TestOneView:
    def test_each_feature_is_defined(self, orders_page) -> None:
        text = text_of(orders_page)
        for said in (
            "orders_24h int64 count() 1 d – (every row) 0",
            "paid_24h int64 count() 1 d paid 0",
            "spent_7d float64 In euros sum(amount) 7 d – (every row) 0",
            "status string last(status) newest , at most 3 d old",
            "email string PII last(email)",
            "paid_share float64 paid_24h / orders_24h – (computed from features of this view)",
        ):
            assert said in text

    def test_its_freshness(self, orders_page) -> None:
        text = text_of(orders_page)
        assert "Materialised through 20 Mar 2024, 10:20 UTC Lag 10 min behind now" in text
        assert re.search(r"Newest visible row 20 Mar 2024, \d\d:\d\d UTC", text)

    def test_its_lineage_leads_to_other_pages(self, orders_page) -> None:
        for link in ("/data/orders", "/models/fraud"):
            assert orders_page.count(f'<a class="node {"source" if "data" in link else "model"}" href="{link}"') == 2
        assert orders_page.count('class="node view here" aria-current="page"') == 2

    def test_its_features_over_time_say_of_what(self, orders_page) -> None:
        text = text_of(orders_page)
        assert "all 11 entities, each read at 18 instants a period" in text
        assert orders_page.count('class="plot"') == 2
        assert orders_page.count('class="spark') == 5  # of the numbers
        assert 'class="outer"' in orders_page
        assert 'class="inner"' in orders_page

    def test_another_feature_can_be_chosen(self, client) -> None:
        page = client.page("/features/Orders?feature=status").text
        assert '<li class="first">new</li>' in page
        assert '<li class="rest">all others</li>' in page
        assert 'aria-current="true">status<' in page

    @pytest.mark.parametrize("feature", ["email", "seen"])
    def test_what_is_not_drawn_says_so(self, client, feature) -> None:
        text = text_of(client.page(f"/features/Orders?feature={feature}").text)
        assert f"The values of {feature} are not drawn" in text
        assert f"{feature}: null" in text
        assert "@example.org" not in text

    def test_another_view_or_feature_is_not_there(self, client) -> None:
        for path in ("/features/Nobody", "/features/Orders?feature=nothing", "/api/features/Nobody"):
            assert client.page(path).status_code == 404
        assert client.page("/features/..%2f..").status_code in (400, 404)

    def test_a_source_without_rows(self, client) -> None:
        text = text_of(client.page("/features/Returns").text)
        assert "No data" in text
        assert "No data yet: run mainspring ingest returns" in text
        assert "No row of returns is visible yet" in text

    def test_a_view_that_was_never_materialised(self, here) -> None:
        text = shown(here.having(online=MemoryOnlineStore()), "/features/Orders?key.country=AT&key.number=1")
        assert "Not materialised" in text
        assert "run mainspring materialize Orders" in text
        assert "The view was never materialised" in text

    def test_what_is_slow_is_not_waited_for(self, here) -> None:
        client = Client(create_app(here, Looking(wait_s=0)), here.key())
        text = text_of(client.page("/features/Orders").text)
        assert "The distributions are being computed. Reload in a moment." in text


class TestOneEntity:
    def test_its_values_both_ways(self, client, here) -> None:
        clock = here.clock
        clock.set(NOW - 600_000_000)
        try:
            text = text_of(client.page("/features/Orders?key.country=AT&key.number=1").text)
        finally:
            clock.set(NOW)
        assert "Equal from" in text
        assert text.count("Equal") == 1 + len(Orders.names)
        assert "Differs" not in text

    def test_a_difference_is_marked_and_explained(self, here) -> None:
        from kit.console.shop import KEYINGS
        from mainspring.core.locks import MemoryLocks
        from mainspring.data.ingest import Ingestor

        project = shop()
        more = rows(1)[0] | {"country": "AT", "number": 1, "amount": 999.0}
        more |= {"ordered_at": "2024-03-20T10:20:00Z", "seen_at": "2024-03-20T10:21:00Z"}
        Ingestor(project.lake, MemoryLocks(), project.clock).ingest(orders, [more], keyings=KEYINGS)
        answer = Client(create_app(project), project.key()).page("/features/Orders?key.country=AT&key.number=1")
        assert '<tr class="differs">' in answer.text
        assert re.search(
            r"\d of 9 differ \d+ rows? of this buyer became visible after 20 Mar 2024", text_of(answer.text)
        )

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("key.country=AT&key.number=one", "'one' is not an int64, which the key 'number' of entity 'buyer' is."),
            ("key.country=AT&key.number=9223372036854775808", "is not an int64"),
            ("key.country=AT", "needs the key 'number'"),
            ("key.country=" + "a" * 2000 + "&key.number=1", "over 1,024 characters"),
        ],
    )
    def test_a_key_that_is_none_is_said_to_be_none(self, client, query, said) -> None:
        answer = client.page(f"/features/Orders?{query}")
        assert answer.status_code == 422
        assert said in text_of(answer.text)
        assert "Definition" in answer.text  # the page is whole
        api = client.get(f"/api/features/Orders/online?{query}")
        assert api.status_code == 400
        assert said in api.json()["error"]

    def test_a_hostile_key_is_a_key(self, client) -> None:
        from urllib.parse import quote

        answer = client.page(f"/features/Orders?key.country={quote(HOSTILE)}&key.number=1")
        assert answer.status_code == 200
        assert "Missing" in text_of(answer.text)
        found = Markup()
        found.feed(answer.text)
        assert "img" not in found.tags
        assert found.tags["script"] == [{"src", "defer"}] * 3

    def test_a_default_that_stands_in_for_null_is_called_one(self) -> None:
        here = shop()
        here.clock.set(NOW + 30 * DAY)  # nothing is in a window
        text = shown(here, "/features/Orders?key.country=AT&key.number=1")
        assert re.search(r"spent_7d float64 Default 0(\.0)? ", text)
        assert "largest_7d float64 Null" in text

    def test_examples_lead_to_entities_that_are_there(self, client) -> None:
        page = client.page("/features/Orders").text
        links = re.findall(r'href="(\?feature=[^"]*key\.country=[^"]*)#entity"', page)
        assert len(links) == 6
        answer = client.page("/features/Orders" + links[0].replace("&amp;", "&"))
        assert answer.status_code == 200
        assert "within reach" in text_of(answer.text)


class TestData:
    def test_every_source_with_its_table(self, client, here) -> None:
        text = text_of(client.page("/data").text)
        table = here.lake.scan("orders").rows.num_rows
        failed = here.lake.scan("orders__quarantine").rows.num_rows
        assert f"orders PII Orders as they come in {table} – (kept in memory)" in text
        assert re.search(rf"20 Mar 2024, \d\d:\d\d UTC [\w ]+ 1 {failed} 3 till", text)
        assert "returns Empty no data yet: run mainspring ingest returns" in text

    def test_other_tables_are_named_but_tiles_are_not(self) -> None:
        project = shop()
        table = project.lake.scan("orders").rows
        for name in ("leftover", "tiles__abc"):
            project.lake.append(name, table.to_batches(), table.schema, key="k")
        text = shown(project, "/data")
        assert "leftover" in text
        assert "tiles__abc" not in text

    def test_one_source(self, client) -> None:
        page = client.page("/data/orders").text
        text = text_of(page)
        for said in (
            "ordered_at timestamp event time",
            "seen_at timestamp recorded time",
            "country string key of buyer",
            "amount float64",
            "email string PII",
            "at seen_at and 5 min later",
            "fails not_null(amount)",
            "mainspring data quarantine orders",
            "all of it",
            "0 → version 1",
            "new, version 0",
        ):
            assert said in text
        assert page.count('<svg class="reference"') >= 6
        assert "@example.org" not in page
        assert '<span class="tag">half</span>' in page

    def test_another_source_is_not_there(self, client) -> None:
        assert client.page("/data/nobody").status_code == 404
        assert client.page("/data/predictions").status_code == 404

    def test_a_source_called_commits_has_a_page_too(self) -> None:
        commits = ms.Source("commits", schema={"x": ms.Float64}, event_time="at")
        project = Project(definitions=replace(definitions(), sources={"commits": commits}))
        client = Client(create_app(project), project.key())
        assert 'href="/data/tables/commits"' in client.page("/data").text
        assert "No dataset commit yet" in text_of(client.page("/data/commits").text)
        assert "Source commits" in text_of(client.page("/data/tables/commits").text)

    def test_no_source(self) -> None:
        text = shown(Project(definitions=declared()), "/data")
        assert "No source is declared yet" in text
        assert "mainspring ingest orders FILE" in text


class TestCommits:
    def test_the_newest_first_with_tags(self, client, here) -> None:
        text = text_of(client.page("/data/commits").text)
        assert text.index("all of it") < text.index("half of it")
        assert re.search(r"half of it half orders, orders__quarantine 2", text)

    def test_one_commit_beside_its_parent(self, client, here) -> None:
        newest, first = here.snapshots.log()
        page = client.page(f"/data/commits/{newest.id}").text
        text = text_of(page)
        came = here.lake.scan("orders", 1).rows.num_rows - here.lake.scan("orders", 0).rows.num_rows
        assert "2 of 2 differ from the parent" in text
        assert f"+{came} rows {came} came, 0 went" in text
        assert "amount" in text
        assert "@example.org" not in text
        assert f'href="/data/commits/{first.id}"' in page

    def test_the_first_has_none(self, client, here) -> None:
        text = text_of(client.page(f"/data/commits/{here.snapshots.log()[-1].id}").text)
        assert "the first commit" in text
        assert "Difference" not in text

    def test_beside_another_and_by_tag(self, client, here) -> None:
        newest = here.snapshots.log(1)[0]
        text = text_of(client.page(f"/data/commits/half?to={newest.id}").text)
        assert f"2 of 2 differ from {newest.id[:12]}" in text
        assert "0 came," in text

    def test_another_is_not_there(self, client, here) -> None:
        newest = here.snapshots.log(1)[0]
        for path in ("/data/commits/nothing", f"/data/commits/{newest.id}?to=nothing"):
            assert client.page(path).status_code == 404
        assert client.page(f"/data/commits/{newest.id}?to=..%2f..").status_code == 400

    def test_a_version_that_was_vacuumed_is_named(self) -> None:
        project = shop()
        newest = project.snapshots.log(1)[0]
        project.lake.vacuum("orders", [])
        text = shown(project, f"/data/commits/{newest.id}")
        assert "does not have version 0" in text

    def test_a_table_that_was_dropped_from_the_lake(self, here) -> None:
        lost = DatasetCommit("f" * 32, {"gone": 3}, None, "long ago", NOW - HOUR)
        project = shop()
        project.snapshots.add(lost)
        assert "no longer readable" in shown(project, f"/data/commits/{lost.id}")


class SilentStore(MemoryOnlineStore):
    def mark(self, view):
        raise Unavailable("The online store did not answer.")

    def read(self, wanted):
        raise Unavailable("The online store did not answer.")


class DamagedLake(MemoryLake):
    def scan(self, table, version=None):
        raise Corrupt("The log of the table is damaged.")


class SilentVersions(MemoryVersions):
    def all(self, model=None):
        raise Unavailable("The registry did not answer.")


class TestSomethingIsGone:
    @pytest.mark.parametrize("path", PAGES)
    def test_the_store(self, path) -> None:
        text = shown(shop().having(online=SilentStore()), path)
        assert path.startswith("/data") or "The online store did not answer." in text

    def test_the_store_when_an_entity_is_looked_up(self) -> None:
        path = "/features/Orders?key.country=AT&key.number=1"
        assert "The online store did not answer." in shown(shop().having(online=SilentStore()), path, 503)

    @pytest.mark.parametrize("path", PAGES)
    def test_the_lake(self, path, here) -> None:
        text = shown(here.having(lake=DamagedLake()), path)
        assert path == "/data/commits" or "The log of the table is damaged." in text

    @pytest.mark.parametrize("path", ["/features/Orders", "/data/orders"])
    def test_the_registry(self, path, here) -> None:
        text = shown(here.having(versions=SilentVersions()), path)
        assert "The registry did not answer." in text
        assert "Lineage" in text


def test_whatever_people_call_things_is_only_text() -> None:
    source = ms.Source(
        "orders",
        schema={"country": ms.String, "number": ms.Int64, "status": ms.String},
        event_time="at",
        description=HOSTILE,
        owner=HOSTILE,
        checks=[ms.one_of("status", [HOSTILE, "ok"])],
    )
    view = ms.feature_view(entity=buyer, source=source, owner=HOSTILE, tags={HOSTILE: HOSTILE})(
        type(
            "Orders",
            (),
            {
                "__doc__": HOSTILE,
                "status": ms.last("status", description=HOSTILE),
                "n": ms.count(window="1h", where=ms.col("status") == HOSTILE),
            },
        )
    )
    from kit.console.shop import KEYINGS
    from mainspring.core.locks import MemoryLocks
    from mainspring.data.ingest import Ingestor

    project = Project(definitions=declared(sources={"orders": source}, views={"Orders": view}))
    project.clock.set(NOW)
    arriving = [
        {"country": HOSTILE, "number": n, "status": status, "at": "2024-03-20T00:00:00Z"}
        for n, status in enumerate([HOSTILE, HOSTILE, HOSTILE + "!", "ok"])
    ]
    Ingestor(project.lake, MemoryLocks(), project.clock).ingest(source, arriving, keyings=KEYINGS)
    commit = DatasetCommit("a" * 32, {"orders": 0}, None, HOSTILE, NOW)
    project.snapshots.add(commit)
    client = Client(create_app(project), project.key())
    for path in (
        "/features",
        "/features/Orders",
        "/data",
        "/data/orders",
        "/data/commits",
        f"/data/commits/{'a' * 32}",
    ):
        answer = client.page(path)
        assert answer.status_code == 200
        assert "alert(1)" in answer.text
        found = Markup()
        found.feed(answer.text)
        assert "img" not in found.tags
        assert found.tags["script"] == [{"src", "defer"}] * 3
        assert [name for names in found.names for name in names if name.startswith("on")] == []
        assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|javascript:", answer.text) == []


@pytest.mark.parametrize("path", PAGES)
def test_no_page_reaches_out(client, path) -> None:
    text = client.page(path).text
    assert re.findall(r'(?:href|src|action)="(?!/|#|\?|data:)[^"]*"', text) == []


class TestApi:
    def test_views(self, client) -> None:
        found = client.get("/api/features?q=amount").json()
        (view,) = found["views"]
        assert (view["name"], view["matches"], found["total"]) == ("Orders", ["spent_7d", "largest_7d"], 2)
        assert view["freshness"]["lag_us"] == 600_000_000

    def test_one_view(self, client) -> None:
        found = client.get("/api/features/Orders").json()
        assert [feature["name"] for feature in found["features"]] == list(Orders.names)
        assert {"start": "source:orders", "end": "view:Orders", "gives": "rows"} in found["lineage"]["edges"]

    def test_distributions(self, client) -> None:
        whole = client.get("/api/features/Orders/distributions").json()
        assert (whole["entities"], whole["version"]) == (11, 1)
        one = client.get("/api/features/Orders/distributions?feature=status").json()
        assert one == {**whole["features"]["status"], "units": whole["units"]}
        assert client.get("/api/features/Orders/distributions?feature=no").status_code == 404
        assert client.get("/api/features/Returns/distributions").json() is None

    def test_what_is_being_made_is_202(self, here) -> None:
        client = Client(create_app(here, Looking(wait_s=0)), here.key())
        answer = client.get("/api/features/Orders/distributions")
        assert (answer.status_code, answer.json()) == (202, {"ready": False})
        assert answer.headers["retry-after"] == "2"

    def test_one_entity(self, client) -> None:
        found = client.get("/api/features/Orders/online?key.country=AT&key.number=1").json()
        assert found["key"] == {"country": "AT", "number": 1}
        assert [value["feature"] for value in found["values"]] == list(Orders.names)
        assert client.get("/api/features/Orders/online").status_code == 400

    def test_lineage(self, client) -> None:
        found = client.get("/api/lineage").json()
        ids = {f"{node['kind']}:{node['name']}" for node in found["nodes"]}
        assert {edge[end] for edge in found["edges"] for end in ("start", "end")} <= ids

    def test_data(self, client, here) -> None:
        found = client.get("/api/data").json()
        assert [row["name"] for row in found["sources"]] == ["checkouts", "orders", "returns"]
        one = client.get("/api/data/tables/orders").json()
        assert one["reasons"]["fails not_null(amount)"] == one["row"]["quarantined"]
        profile = client.get("/api/data/tables/orders/profile").json()
        assert profile["rows"] == one["row"]["extent"]["rows"]
        assert "@example.org" not in str(profile)
        assert client.get("/api/data/tables/nobody").status_code == 404

    def test_commits(self, client, here) -> None:
        newest, first = here.snapshots.log()
        assert [row["commit"]["id"] for row in client.get("/api/data/commits").json()["commits"]] == [
            newest.id,
            first.id,
        ]
        one = client.get(f"/api/data/commits/{newest.id}").json()
        assert one["other"]["id"] == first.id
        (table, *_) = client.get(f"/api/data/commits/{newest.id}/difference").json()
        assert (table["table"], table["removed"]) == ("orders", 0)
        assert client.get(f"/api/data/commits/{first.id}/difference").json() is None

    def test_a_lake_that_is_damaged_is_500_where_it_was_asked_for(self, here) -> None:
        client = Client(create_app(here.having(lake=DamagedLake())), here.key())
        answer = client.get("/api/features/Orders/distributions")
        assert (answer.status_code, answer.json()["error"]) == (500, "The log of the table is damaged.")

    def test_a_table_that_is_too_large_is_400_and_not_to_be_asked_for_again(self, here, monkeypatch) -> None:
        monkeypatch.setattr("mainspring.console.data.tables.PROFILED_ROWS", 1)
        answer = Client(create_app(here), here.key()).get("/api/data/tables/orders/profile")
        assert (answer.status_code, answer.json()["retryable"]) == (400, False)
        assert answer.json()["error"].endswith("at most 1 are counted here.")


def test_the_overview_leads_on() -> None:
    project = shop()
    page = Client(create_app(project), project.key()).page("/?endpoint=checkout").text
    for link in ("/features", "/data", "/features/Orders", "/data/checkouts"):
        assert f'href="{link}"' in page


def test_one_source_in_a_lake_of_its_own() -> None:
    project = Project(definitions=definitions(), lake=landed(rows(30)))
    project.clock.set(NOW)
    assert "No commit contains this table yet" in shown(project, "/data/orders")
