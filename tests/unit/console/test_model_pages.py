"""The pages of models, versions and cards: what they say, refuse, and do with what people invent."""

import re
import threading
from pathlib import Path

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, declared, populated
from kit.console.registered import MODEL, OTHER, key, optimised, registered, searched
from kit.depth import examples
from mainspring.console.app import create_app
from mainspring.console.background_cache import Looking
from mainspring.console.models.variants import optimised as variants_of
from mainspring.core.time import DAY, MINUTE
from mainspring.delivery.model import Evaluation, GateResult
from mainspring.operations.models.evaluation import evaluate_version
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.model import AliasMove, Approval, Waiver
from mainspring.stats.metrics import metrics_of
from unit.console.test_pages import Markup, text_of


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return registered(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def shown(client: Client, path: str, status: int = 200) -> str:
    answer = client.page(path)
    assert answer.status_code == status, answer.text
    Markup().feed(answer.text)
    return answer.text


def row(page: str, begins: str) -> str:
    """Return the text of the one row of a table whose head begins so."""
    rows = [re.sub(r"\s+", " ", text_of(f"<main>{each}</main>")).strip("> ") for each in page.split("<tr>")[1:]]
    (found,) = [each for each in rows if each.startswith(begins)]
    return found


class TestModels:
    def test_newest_champion_and_endpoints(self, client: Client) -> None:
        page = shown(client, "/models")
        found = row(page, MODEL)
        assert "version 32 version 34" in found  # champion, newest
        assert "34 2 marked" in found
        assert "version 32 90%, version 34 10%" in found
        assert "challenger 34" in found
        assert "registered, not declared" in row(page, OTHER)

    def test_the_same_over_the_api(self, client: Client) -> None:
        first, second = client.get("/api/models").json()["models"]
        assert (first["name"], first["champion"]["version"], first["newest"]["version"]) == (MODEL, "32", "34")
        assert first["aliases"] == {"champion": "32", "challenger": "34"}
        assert first["serving"] == [{"endpoint": MODEL, "reference": "champion", "versions": {"32": 0.9, "34": 0.1}}]
        assert (second["name"], second["declared"], second["serving"]) == (OTHER, False, [])

    def test_found_by_a_part_of_the_name(self, client: Client) -> None:
        page = shown(client, "/models?q=NIGHT")
        assert f'href="/models/{OTHER}"' in page
        assert f'href="/models/{MODEL}"' not in page
        assert "No model has “<i>” in its name." in text_of(shown(client, "/models?q=%3Ci%3E"))

    def test_a_project_without_a_model(self) -> None:
        bare = Project(definitions=declared())
        assert "No models yet" in shown(Client(create_app(bare), bare.key()), "/models")


class TestModel:
    def test_versions_with_state_metrics_and_approvals(self, client: Client, project: Project) -> None:
        whole = shown(client, f"/models/{MODEL}")
        page = whole[whole.index('class="registered') :]
        newest = project.versions.get(MODEL, "34")
        auc = project.run_search.get([newest.run_id])[0].metrics["holdout.auc"]
        found = row(page, "34 challenger")
        assert "Live late-arrival 10%" in found
        assert f"{auc:.4f}" in found
        assert "0.5" in found  # the baseline
        assert "key:k1:cem" in found
        assert "Marked for deletion by local:ben" in row(page, "33")
        assert "champion Live" in row(page, "32")
        assert "Registered" in row(page, "31")
        assert "version 32 is champion" in text_of(whole)

    def test_an_authors_own_word_is_none(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        version = project.versions.get(MODEL, "20")
        (author,) = client_json(project, f"/api/models/{MODEL}/versions/20")["authors"]
        project.approvals.add(Approval(MODEL, "20", version.digest, author, "mine", NOW))
        project.approvals.add(Approval(MODEL, "20", "0" * 64, "key:k2:dora", "of other bytes", NOW))
        rows = client_json(project, f"/api/models/{MODEL}?before=21")["rows"]
        assert (rows[0]["version"]["version"], rows[0]["approvers"]) == ("20", [])
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}/versions/20")
        assert "0 of 1 needed" in text_of(page)
        assert "is the author, so this approval does not count" in text_of(page)
        assert "for another digest, so this approval does not count" in text_of(page)

    def test_every_version_is_on_one_page(self, client: Client) -> None:
        path, seen = f"/models/{MODEL}", []
        while path:
            page = shown(client, path)
            table = page[page.index('class="registered') : page.index('id="history"')]
            seen += re.findall(rf'<th scope="row"><a href="/models/{MODEL}/versions/(\d+)"', table)
            following = re.search(r'class="next" href="([^"#]+)', table)
            path = following[1] if following else ""
        assert seen == [str(number) for number in range(34, 0, -1)]

    def test_the_history_of_aliases_with_who_and_why(self, client: Client) -> None:
        page = shown(client, f"/models/{MODEL}/history")
        assert "champion back from version 32 to version 29" in re.sub(r"\s+", " ", text_of(page))
        assert "rollback: late arrivals were missed &lt;b&gt;again&lt;/b&gt;" in page
        assert "11 decisions" in text_of(page)
        of_one = client.get(f"/api/models/{MODEL}/history?alias=challenger").json()
        assert [(each["old"], each["version"], each["actor"]) for each in of_one["history"]] == [
            (None, "34", "local:ana")
        ]
        kinds = {each["kind"] for each in client.get(f"/api/models/{MODEL}/history").json()["history"]}
        assert kinds == {"alias", "approval", "deletion"}

    def test_the_history_has_pages(self) -> None:
        project = populated()
        for number in range(120):
            old, new = ("2", "1") if number % 2 == 0 else ("1", "2")
            move = AliasMove(MODEL, "champion", old, new, "ana", f"move {number}", NOW - DAY + number * MINUTE)
            project.versions.set_alias(move)
        client, path, seen = Client(create_app(project), project.key()), f"/models/{MODEL}/history", []
        while path:
            page = shown(client, path)
            seen += re.findall(r"move (\d+)", page)
            following = re.search(r'class="next" href="([^"]+)"', page)
            path = following[1].replace("&amp;", "&") if following else ""
        assert seen == [str(number) for number in range(119, -1, -1)]

    def test_its_searches(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        run = searched(project, 8)
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}")
        assert f'href="/runs/{run}/search"' in page

    def test_one_that_was_declared_but_never_trained(self) -> None:
        project = populated().having(versions=MemoryVersions())
        client = Client(create_app(project), project.key())
        assert "No version yet" in text_of(shown(client, f"/models/{MODEL}"))
        assert "never trained" in shown(client, "/models")

    def test_a_version_whose_run_is_not_here(self) -> None:
        project = populated()
        other = project.versions.get(MODEL, "2")
        project.versions.register("brought", other.digest, "0" * 20, {"author": "local:<i>"}, NOW)
        client = Client(create_app(project), project.key())
        page = shown(client, "/models/brought")
        assert "local:&lt;i&gt;" in page
        assert "not in this installation" in shown(client, "/models/brought/versions/1")


class TestVersionsGates:
    def test_the_last_evaluation_with_intervals_slices_and_waivers(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        client = Client(create_app(project), project.key())
        assert "Last evaluation of the gates" not in shown(client, f"/models/{MODEL}/versions/34")
        first = GateResult(
            gate="auc at least 0.9, 95 % sure, by carrier", against="limit", value=0.87, needed=0.9, passed=False,
            short_by=0.05, interval=(0.85, 0.89), sure=0.95, slice="carrier=<b>", rows=1400,
            waived="local:ana until 2026-12-01T00:00:00Z: <i>a hot fix</i>",
        )  # fmt: skip
        second = GateResult(
            gate="brier at most 0.2", against="limit", value=None, needed=None, passed=False, short_by=None, note="none"
        )
        for promoted, results in ((True, (first,)), (False, (first, second))):
            made = Evaluation(
                model=MODEL,
                version="34",
                champion="32",
                promoted=promoted,
                results=results,
                actor="local:ana",
                at=NOW,
            )
            project.evaluations.add(made)
        page = shown(client, f"/models/{MODEL}/versions/34")
        told = re.sub(r"\s+", " ", text_of(page))
        for words in (
            "not promoted by local:ana",
            "carrier=<b>, 1,400 rows",
            "0.85 to 0.89",
            "waived",
            "a hot fix",
            "0 of 2 passed, 1 waived; 1 held the version back.",
            "not passed not measured",
        ):
            assert words in told
        assert "<i>a hot fix" not in page
        found = client.get(f"/api/models/{MODEL}/versions/34").json()["evaluation"]
        assert [each["slice"] for each in found["results"]] == ["carrier=<b>", ""]
        assert found["results"][0]["interval"] == [0.85, 0.89]

    def test_a_verdict_says_what_decided_it(self, tmp_path: Path) -> None:
        """A value that is better than needed does not pass for its bound; and few rows are no failure of the model."""
        project = registered(tmp_path)
        asked = {"against": "limit", "passed": False, "value": 0.74, "needed": 0.73}
        bound = GateResult(
            gate="auc at least 0.73, 95 % sure", short_by=0.01, interval=(0.72, 0.76), sure=0.95, **asked
        )
        harm = "auc at least 0.73, unless 95 % sure of harm"
        results = (
            bound,
            msgspec.structs.replace(bound, gate=harm),
            msgspec.structs.replace(bound, short_by=None, note="insufficient data: 20 rows"),
        )
        made = Evaluation(
            model=MODEL, version="34", champion=None, promoted=False, results=results, actor="ana", at=NOW
        )
        project.evaluations.add(made)
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}/versions/34")
        section = page.partition('aria-labelledby="gates"')[2].partition("</section>")[0]
        told = [re.sub(r"\s+", " ", text_of(f"<main>{each}</main>")) for each in section.split("<tr>")[2:]]
        assert ["the bound decides, not the value" in each for each in told] == [True, False, False]
        assert ["short by 0.01" in each for each in told] == [True, True, False]
        assert "not passed insufficient data" in told[2]

    def test_a_waiver_and_its_end_are_in_the_history(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        made = Waiver(MODEL, "34", "d" * 64, "auc at <b>", "local:ana", "a <i>hot</i> fix", NOW, NOW + DAY)
        project.waivers.add(made)
        project.waivers.end(MODEL, "34", "auc at <b>", actor="local:ben", at=NOW + MINUTE)
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}/history")
        told = re.sub(r"\s+", " ", text_of(page))
        assert "version 34 : the gate “auc at <b>” waived" in told
        assert "version 34 : the waiver of “auc at <b>” ended" in told
        assert "a <i>hot</i> fix" in told


class TestVersion:
    def test_its_lineage_leads_to_what_it_was_made_of(self, client: Client, project: Project) -> None:
        page = shown(client, f"/models/{MODEL}/versions/34")
        version = project.versions.get(MODEL, "34")
        manifest = project.bundles.load(version.digest).manifest
        assert f'href="/runs/{version.run_id}"' in page
        assert f'href="/data/commits/{manifest.dataset_commit}"' in page
        assert f'href="/models/{MODEL}/versions/33">{MODEL} 33</a>' in page  # its parent
        assert f'href="/models/{OTHER}/versions/1">{OTHER} 1</a>' in page  # what was made from it
        assert manifest.features_digest in page
        assert manifest.code_version in page
        assert f'href="/models/{MODEL}/versions/34/card"' in page

    def test_its_files_digests_and_signature_are_those_of_the_bundle(self, client: Client, project: Project) -> None:
        page = shown(client, f"/models/{MODEL}/versions/34")
        bundle = project.bundles.load(project.versions.get(MODEL, "34").digest)
        for name, digest in bundle.manifest.files.items():
            assert digest in row(page, name)
        assert bundle.signature.hex() in page
        assert bundle.digest in page
        told = client.get(f"/api/models/{MODEL}/versions/34").json()
        assert told["bundle"]["found"]["signature"] == bundle.signature.hex()
        assert {each["name"]: each["bytes"] for each in told["files"]} == {
            name: len(content) for name, content in bundle.files.items()
        }

    def test_metrics_have_the_intervals_of_the_card(self, client: Client) -> None:
        told = client.get(f"/api/models/{MODEL}/versions/34").json()
        card = client.get(f"/api/models/{MODEL}/versions/34/card").json()
        around = {each["metric"]: each for each in card["performance"]["metrics"]}
        assert len(told["metrics"]) == 5
        for each in told["metrics"]:
            estimate = each["estimate"]
            assert estimate["low"] == around[estimate["metric"]]["low"] < estimate["value"] < estimate["high"]
        page = shown(client, f"/models/{MODEL}/versions/34")
        assert page.count('class="interval"') == 6  # and the one of the legend
        assert "beats by 0.005" in row(page, "auc")

    def test_author_and_approver(self, client: Client) -> None:
        text = text_of(shown(client, f"/models/{MODEL}/versions/34"))
        assert "local:ben" in text
        assert "1 of 1 needed" in text
        assert "the false alarms are gone" in text
        other = shown(client, f"/models/{MODEL}/versions/31")
        assert "By somebody other than local:ana." in text_of(other)
        assert f'href="/models/{MODEL}/versions/31/approve"' in other

    def test_an_approval_counts_as_it_does_for_the_gate(self, tmp_path: Path) -> None:
        """Not by a key that an author made, nor by one of which nobody knows who made it."""
        project = registered(tmp_path)
        project.approvals.withdraw(MODEL, "34", "key:k1:cem", actor="local:cem", reason="", at=NOW)
        project.key_store.add(key("k2", "local:ben"))
        version = project.versions.get(MODEL, "34")
        for approver in ("key:k2:mine", "key:k3:gone"):
            project.approvals.add(Approval(MODEL, "34", version.digest, approver, "", NOW))
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}/versions/34")
        assert "0 of 1 needed" in text_of(page)

    def test_an_approval_that_was_taken_back_counts_no_more_and_is_told(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        project.approvals.withdraw(MODEL, "34", "key:k1:cem", actor="local:ana", reason="<i>it drifts</i>", at=NOW)
        client = Client(create_app(project), project.key())
        page = shown(client, f"/models/{MODEL}/versions/34")
        assert "0 of 1 needed" in text_of(page)
        assert "withdrawn by local:ana: <i>it drifts</i>" in text_of(page)
        assert "<i>it" not in page
        told = client.get(f"/api/models/{MODEL}/history").json()["history"]
        assert [(each["kind"], each["version"], each["actor"], each["whose"]) for each in told[:1]] == [
            ("withdrawal", "34", "local:ana", "key:k1:cem")
        ]
        assert [each["version"] for each in told if each["kind"] == "approval"] == ["34", "32"]
        assert "the approval of key:k1:cem withdrawn" in text_of(shown(client, f"/models/{MODEL}/history"))

    def test_a_marked_one_says_until_when_it_can_be_had_back(self, client: Client) -> None:
        text = text_of(shown(client, f"/models/{MODEL}/versions/33"))
        assert "trained on a broken day" in text
        assert f"mainspring models restore {MODEL}:33" in text
        assert "lasts until 7 Sep 2013, 23:20 UTC" in text
        assert client.get(f"/api/models/{MODEL}/versions/33").json()["goes_at"] == NOW + 6 * DAY
        over = text_of(shown(client, f"/models/{MODEL}/versions/6"))  # marked nine days ago
        assert "ended 30 Aug 2013, 23:20 UTC" in over

    def test_one_that_is_being_removed(self, tmp_path: Path) -> None:
        project = registered(tmp_path, versions=12)
        project.deletions.claim(MODEL, "11")
        text = text_of(shown(Client(create_app(project), project.key()), f"/models/{MODEL}/versions/11"))
        assert "The version is being removed" in text
        assert "models restore" not in text

    def test_a_damaged_bundle_is_said_and_the_rest_is_there(self, tmp_path: Path) -> None:
        project = registered(tmp_path, versions=10)
        version = project.versions.get(MODEL, "9")
        _, files = project.blobs._store._blobs[version.digest]
        files["model.onnx"] = b"changed"
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}/versions/9")
        assert "The file model.onnx of bundle" in text_of(page)
        assert "Damaged" in text_of(page)
        assert "Signed and intact" not in page
        assert f'href="/models/{MODEL}/versions/8"' in page

    def test_while_it_is_being_verified(self, project: Project) -> None:
        looking, go_on = Looking(0.0), threading.Event()
        looking.at("something that takes long", go_on.wait)
        client = Client(create_app(project, looking), project.key())
        try:
            page = shown(client, f"/models/{MODEL}/versions/30")
            assert "The bundle is being verified." in text_of(page)
            assert "The card is being computed" in text_of(shown(client, f"/models/{MODEL}/versions/30/card"))
            assert client.get(f"/api/models/{MODEL}/versions/30/card").status_code == 202
            assert client.get(f"/api/models/{MODEL}/versions/30").json()["bundle"]["ready"] is False
        finally:
            go_on.set()
        looking.wait_s = 20.0
        assert "Signed and intact" in shown(client, f"/models/{MODEL}/versions/30")

    @pytest.mark.parametrize(
        "path", ["/99", "/x", "/champion", "/0", "/-1", "/1e3", "/99/card", "/99/card.md", "/" + "9" * 30]
    )
    def test_what_there_is_not(self, client: Client, path: str) -> None:
        assert client.page(f"/models/{MODEL}/versions{path}").status_code == 404

    def test_unknown_models(self, client: Client) -> None:
        for path in ("/models/nobody", "/models/nobody/history", "/models/nobody/versions/1", "/api/models/nobody"):
            assert client.page(path).status_code == 404
        assert client.page("/models/a%20b").status_code == 400
        assert client.get(f"/api/models/{MODEL}?before=0").status_code == 400


class TestEvaluation:
    ADDRESS = f"/models/{MODEL}/versions/34/evaluation"

    def test_confusion_curves_and_the_champion_beside(self, client: Client, project: Project) -> None:
        page = shown(client, self.ADDRESS)
        text = text_of(page)
        assert "600 held-out rows; beside version 32, the champion, on 600 rows" in text
        assert page.count('class="curve"') == 4
        held_out = evaluate_version(project, project.versions.get(MODEL, "34"))
        assert held_out.binary is not None
        at_half = held_out.binary.points.at(0.5)
        assert f"{at_half.true_positives} true positives" in re.sub(r"\s+", " ", text)
        assert row(page, "auc").endswith("Undecided")  # both are the same model

    def test_another_threshold_in_page_and_document(self, client: Client) -> None:
        page = shown(client, f"{self.ADDRESS}?threshold=0.9")
        assert "back to the version's own" in text_of(page)
        told = client.get(f"/api{self.ADDRESS}?threshold=0.9").json()
        chosen = told["confusion"]
        assert chosen["threshold"] == pytest.approx(0.9)
        assert f"<strong>{chosen['true_positives']}</strong>" in page
        flagged = dict(zip(told["binary"]["thresholds"], told["binary"]["true_positives"], strict=True))
        assert flagged[0.9] == chosen["true_positives"]
        assert {each["metric"] for each in told["differences"]} == {*metrics_of("binary")}

    def test_what_is_no_threshold_is_refused(self, client: Client) -> None:
        assert client.get(f"/api{self.ADDRESS}?threshold=nan").status_code == 400
        assert client.get(f"/api{self.ADDRESS}?threshold=2").status_code == 400
        assert client.page("/models/late-arrival/versions/99/evaluation").status_code == 404

    def test_the_champion_stands_beside_its_baseline_or_alone(self, client: Client) -> None:
        text = text_of(shown(client, f"/models/{MODEL}/versions/32/evaluation"))
        assert "beside" not in text.partition("held-out rows")[2].partition("Decisions")[0]


class TestCard:
    def test_words_are_text_and_gaps_are_marked(self, client: Client) -> None:
        page = shown(client, f"/models/{MODEL}/versions/34/card")
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "javascript:alert(1)" in page  # as text, and in no link
        assert 'href="javascript' not in page
        assert "Not complete" in text_of(page)
        assert "Contact has not been written yet." in row(page, "Contact")
        assert "Required" in row(page, "Contact")
        assert '<p class="gap">The cost is unknown' in page
        assert page.count('class="interval"') == 5

    def test_it_is_the_card_that_the_command_writes(self, client: Client, project: Project) -> None:
        from mainspring.operations.models.cards import card_of, document, render

        card = card_of(project, project.versions.get(MODEL, "34"))
        answer = client.get(f"/models/{MODEL}/versions/34/card.md")
        assert answer.text == render(card, "md")
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.headers["content-disposition"] == f'attachment; filename="{MODEL}-34-card.md"'
        told = client.get(f"/api/models/{MODEL}/versions/34/card").json()
        assert told == msgspec.json.decode(msgspec.json.encode(document(card)))
        assert told["complete"] is False

    def test_words_that_are_written_now_are_there_at_once(self, tmp_path: Path) -> None:
        project = registered(tmp_path, versions=10)
        client = Client(create_app(project), project.key())
        assert "Contact has not been written yet." in text_of(shown(client, f"/models/{MODEL}/versions/9/card"))
        (tmp_path / "cards" / f"{MODEL}.md").write_text("## Contact\n\nThe desk, room 4.\n")
        text = text_of(shown(client, f"/models/{MODEL}/versions/9/card"))
        assert "The desk, room 4." in text
        assert "Contact has not been written yet." not in text

    def test_a_damaged_bundle_has_no_card(self, tmp_path: Path) -> None:
        project = registered(tmp_path, versions=10)
        version = project.versions.get(MODEL, "9")
        project.blobs._store._blobs[version.digest][1]["holdout.parquet"] = b"changed"
        client = Client(create_app(project), project.key())
        assert "The card cannot be computed" in text_of(shown(client, f"/models/{MODEL}/versions/9/card"))
        assert client.get(f"/models/{MODEL}/versions/9/card.md").status_code == 500
        assert client.get(f"/api/models/{MODEL}/versions/9/card").status_code == 500

    def test_a_model_that_cannot_be_scored_takes_nothing_with_it(self, tmp_path: Path, monkeypatch) -> None:
        project = registered(tmp_path, versions=10)

        def fails(*_: object) -> None:
            raise ZeroDivisionError("<b>of the model's own</b>")

        monkeypatch.setattr("mainspring.governance.performance.score_bundle", fails)
        client = Client(create_app(project), project.key())
        page = shown(client, f"/models/{MODEL}/versions/9")
        assert "without intervals: The model late-arrival:9 cannot be scored: ZeroDivisionError" in text_of(page)
        assert "<b>of the model" not in page
        assert "cannot be scored" in text_of(shown(client, f"/models/{MODEL}/versions/9/card"))


def client_json(project: Project, path: str) -> dict:
    answer = Client(create_app(project), project.key()).get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


PATHS = (
    "/models",
    f"/models/{MODEL}",
    f"/models/{MODEL}/history",
    f"/models/{MODEL}/versions/34",
    f"/models/{MODEL}/versions/34/card",
    f"/models/{MODEL}/versions/34/card.md",
    f"/api/models/{MODEL}",
)


@pytest.mark.parametrize("path", PATHS)
def test_nobody_sees_them_without_a_key_and_nobody_changes_anything(client: Client, path: str) -> None:
    answer = Client(client.app).page(path)
    assert answer.status_code == 401
    assert "local:ben" not in answer.text
    assert client("POST", path).status_code == 405
    assert client("DELETE", path).status_code == 405


def test_thousands_of_versions_are_a_page_of_twenty(tmp_path: Path) -> None:
    project = registered(tmp_path, versions=10)
    digest = project.versions.get(MODEL, "9").digest
    more = examples(gate=1000, deep=3000)
    for number in range(more):
        project.versions.register(MODEL, f"{number:064x}", "", {}, NOW + number)
    page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}")
    assert f"the newest 20 of {more + 10:,}" in text_of(page)
    assert len(page) < 80_000
    assert digest not in page


class TestVariants:
    def test_pictures_and_a_table_of_what_was_measured(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        run = optimised(project, "31")
        client = Client(create_app(project), project.key())
        page = shown(client, f"/models/{MODEL}/versions/31")
        assert text_of(page).count("trees-50 is chosen: version 34 . It lowers the p50 of one row by 59%.") == 1
        assert f'href="/runs/{run}"' in page
        assert page.count('class="curve variants"') == 2
        assert page.count('<circle class="chosen"') == 2
        assert page.count('<text class="number"') == 24
        assert "the &lt;i&gt;version&lt;/i&gt; itself" in page
        assert "no other is better in both" in row(page, "1 parent")
        assert "chosen" in row(page, "5 trees-50")
        assert "a gate fails auc at least 0.8" in row(page, "7 trees-12")
        assert "refused a row" in row(page, "12 apart")
        assert "None of the 5,203 splits" in text_of(page)
        assert "variants" not in shown(client, f"/models/{MODEL}/versions/30")

    def test_a_report_that_is_gone_is_no_error(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        project.tracking.log_artefact(optimised(project, "31"), "optimise.json", b"{}")
        page = shown(Client(create_app(project), project.key()), f"/models/{MODEL}/versions/31")
        assert "curve variants" not in page

    def test_dots_lie_where_their_values_are_and_labels_apart(self, tmp_path: Path) -> None:
        project = registered(tmp_path)
        optimised(project, "31")
        found = variants_of(project, project.versions.get(MODEL, "31"))
        assert found is not None
        (_, latency), _ = found.pictures
        dots = [
            (float(x), float(y))
            for x, y in re.findall(r'<circle class="(?:first|other)" cx="(.*?)" cy="(.*?)"', latency)
        ]
        points = [(each.cost.p50_us, each.quality.value) for each in found.measured if each.cost and each.quality]
        for (x, y), (price, value) in zip(dots, points, strict=True):
            for (other_x, other_y), (other_price, other_value) in zip(dots, points, strict=True):
                assert (x < other_x) == (price < other_price) or abs(x - other_x) < 0.1
                assert (y < other_y) == (value > other_value) or abs(y - other_y) < 0.1
        labels = [(float(x), float(y)) for x, y in re.findall(r'<text class="number" x="(.*?)" y="(.*?)"', latency)]
        near = [(a, b) for a in labels for b in labels if a < b and abs(a[0] - b[0]) < 12 and abs(a[1] - b[1]) < 9]
        assert near == []
